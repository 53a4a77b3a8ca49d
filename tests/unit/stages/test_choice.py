"""The generator that serves: the better one; none where none can be used; and what the arms then learn from."""

import numpy as np
import pytest
from episode_strategies import make_trajectories

from phaseb.config.root import Config
from phaseb.dynamics.evidence import ForecastScore
from phaseb.runtime.storage import Store
from phaseb.stages.arm_generator import FILE, branched_generators, generator_of, served_generator
from phaseb.stages.choice import GeneratorEvidence, _out, choose, evidence
from phaseb.stages.evaluate import settings_of
from phaseb.stages.registry import build_graph

GOOD = {"trusted_steps": 8, "judge_auc_noise": 0.6, "state_skill": 0.8, "reward_skill": 0.6, "score": 0.7}


def known(skill, out="", scale=0.3):
    """GeneratorEvidence of a generator with an error of 1 - skill in every one of six episodes."""
    rows = np.tile([1 - skill, 1.0, 1 - skill, 1.0], (6, 1))
    numbers = GOOD | {"score": skill, "state_skill": skill, "reward_skill": skill}
    return GeneratorEvidence(out, numbers, ForecastScore(skill, skill, rows, np.arange(6)), scale)


def test_the_best_forecasts_serve_and_the_reason_says_by_how_much():
    found = choose({"gru": known(0.9), "gp": known(0.5)}, 8, 0)
    assert found["generator"] == "gru"
    assert found["uncertainty_scale"] == 0.3
    assert found["margin"] == pytest.approx({"mean": 0.4, "low": 0.4, "high": 0.4})
    assert "gru serves" in found["reason"]
    assert "0.40 above that of gp" in found["reason"]


def test_one_that_is_left_out_does_not_serve_however_well_it_forecasts():
    found = choose({"gru": known(0.5), "gp": known(0.9, out="it diverges")}, 8, 0)
    assert found["generator"] == "gru"
    assert "gp is left out: it diverges" in found["reason"]
    assert found["margin"] is None


def test_where_all_are_out_none_serves():
    found = choose({"gru": known(0.9, "it is constant"), "gp": GeneratorEvidence("it diverges", {})}, 8, 0)
    assert found["generator"] is None
    assert "recorded data alone" in found["reason"]
    assert "gru is left out: it is constant; gp is left out: it diverges" in found["reason"]


@pytest.mark.parametrize(
    ("numbers", "scale", "short", "said"),
    [
        ({}, 0.3, "", ""),
        ({}, 0.3, "rewards are poor", "check of forecast skill: at the first step rewards are poor"),
        ({}, 0.0, "", "never says that it is uncertain"),
        ({"judge_auc_noise": 1.0}, 0.3, "", "AUC 1.00"),
        ({"judge_auc_noise": None}, 0.3, "", ""),
    ],
)
def test_why_a_generator_is_left_out(numbers, scale, short, said):
    found = _out(GOOD | numbers, scale, short)
    assert said in found
    assert bool(found) == bool(said)


def test_a_generator_that_cannot_be_read_is_left_out(tmp_path):
    found = evidence(Config(), Store.at(str(tmp_path)), "gp", make_trajectories([10] * 4))
    assert found.out
    assert found.score is None


def test_arms_learn_from_the_one_that_serves(tmp_path):
    store, config = Store.at(str(tmp_path)), Config()
    arm = config.arms.arm("trust_weighted")
    assert generator_of(arm, store) is None, "nothing was chosen yet"
    store.write_json({"generator": "gru", "uncertainty_scale": 1.0}, *FILE)
    assert generator_of(arm, store) == served_generator(config, "trust_weighted", store) == "gru"
    assert branched_generators(config, store) == ("gru",)
    assert generator_of(config.arms.arm("fixed_weight"), store) == "gru"
    assert generator_of(config.arms.arm("placebo_trust_weighted"), store) is None
    assert settings_of(arm, "gru")["generator"] == "gru"
    assert settings_of(arm, None)["generator"] is None


def test_every_generator_enters_the_race():
    plugin = {"dynamics": {"plugins": {"own": {"model": "a:B"}}}}
    config = Config.model_validate(plugin)
    assert config.candidates == ("gru", "gp", "own")
    stages = {stage.name: stage for stage in build_graph(config)}
    assert stages["choice"].inputs == ("encode", "dynamics/gru", "dynamics/gp", "dynamics/own")
    assert "choice" in stages["policy"].inputs
    named = Config.model_validate({"arms": {"trust_weighted": {"generator": "gp"}}})
    assert named.candidates == ()
    assert "choice" not in {stage.name for stage in build_graph(named)}


def test_stored_rollouts_need_a_generator_by_name():
    with pytest.raises(ValueError, match="name the generator of stored rollouts"):
        Config.model_validate({"arms": {"fixed_weight": {"generator": "chosen"}}})
