"""The list of settings: every field once, named sections under NAME."""

from phaseb.config.arms import DEFAULT_ARMS, ArmConfig
from phaseb.config.load import dotted_paths
from phaseb.config.policy import LearnerConfig
from phaseb.config.reference import settings

KNOWN = {setting.path: setting for setting in settings()}


def test_named_sections_are_listed_once():
    assert {path for path in KNOWN if path.startswith("arms.NAME.")} == {
        f"arms.NAME.{name}" for name in ArmConfig.model_fields
    }
    assert sum(path.startswith("policy.learners.") for path in KNOWN) == len(LearnerConfig.model_fields)
    assert not any(name in path for name in DEFAULT_ARMS for path in KNOWN)


def test_every_path_of_the_schema_is_listed():
    plain = {path for path in dotted_paths() if not path.startswith(("arms.", "policy.learners."))}
    assert plain <= set(KNOWN)
    assert {"arms.names", "arms.controls", "arms.num_seeds"} <= set(KNOWN)


def test_the_defaults_of_built_in_names():
    assert KNOWN["arms.NAME.learner"].by_name == {
        "behaviour_cloning": "bc",
        "real_only": "iql",
        "trust_weighted": "sac",
    }
    assert KNOWN["arms.NAME.share"].by_name["fixed_weight"] == "0.1"
    assert KNOWN["policy.learners.NAME.num_critics"].by_name == {"sac": "3", "edac": "5"}
    assert KNOWN["policy.num_steps"].by_name == {}
