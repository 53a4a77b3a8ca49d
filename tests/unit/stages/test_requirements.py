"""What would fail late is said before anything is trained; sizes that can follow the episodes do, and it is said."""

import numpy as np
import pytest

from phaseb.config.load import load_config
from phaseb.errors import ClusterError, ConfigError, DataError
from phaseb.pipeline.dataset_stats import DataFacts
from phaseb.pipeline.machine import Machine
from phaseb.pipeline.requirements import REQUIREMENTS, preflight
from phaseb.pipeline.sizes import fit_sizes
from phaseb.runtime.storage import Store, to_jsonable

ROOMY = Machine(10**11, 10**11, 10**11, 10**11)


def facts(train=(60,) * 50, dev=(60,) * 10, test=(60,) * 60, **more) -> DataFacts:
    lengths = {"train": train, "dev": dev, "test": test}
    known = {"action_size": 2, "state_size": 4, "reward_low": 0.0, "reward_high": 1.0, **more}
    return DataFacts({split: np.sort(np.array(some, dtype=np.int64)) for split, some in lengths.items()}, **known)


def config(*words):
    return load_config(None, ["environment.id=none", "run.dir=/nowhere", *words])


def refusal(found, *stages) -> str:
    with pytest.raises((DataError, ConfigError, ClusterError)) as caught:
        found.require(*stages)
    return str(caught.value)


def test_the_default_config_needs_nothing_changed():
    found = preflight(config(), facts(), ROOMY)
    assert found.lines() == []
    assert found.config == config()
    found.require()


CHOSEN = [
    # setting, what is chosen, the episodes, the words of the config
    ("synthesis.horizon", 40, facts((40,) * 20, (40,) * 5, (40,) * 20), ()),
    ("dynamics.gru.horizon.steps", 40, facts((40,) * 20, (40,) * 5, (40,) * 20), ()),
    ("dynamics.gru.horizon.steps", 80, facts((80,) * 20, (80,) * 5, (80,) * 20), ("dynamics.gru.horizon.steps=100",)),
    ("judge.num_folds", 3, facts(test=(60,) * 12), ()),
    ("judge.num_folds", 2, facts(test=(60,) * 5), ()),
    ("judge.rungs", ("simulator", "encode_decode", "one_step", "5", "15", "30", "60"), facts(test=(60,) * 5), ()),
    ("trust.num_folds", 3, facts((60,) * 3), ()),
    ("trust.num_folds", 4, facts((60,) * 8), ("dynamics.gru.weights.trust=0.1",)),
    ("policy.batch_size", 64, facts((60,) * 2), ()),
    ("policy.batch_size", 63, facts((60,) * 2), ("resources.num_workers=3", "policy.batch_size=126")),
    ("latents.segment_steps", 10, facts((9,) * 20, (9,) * 5, (9,) * 20), ()),
    ("bricks.num_bricks", 2, facts((60,) * 2), ("bricks.num_bricks=9",)),
    ("arms.names", ("behaviour_cloning",), facts(reward_high=0.0), ()),
    ("arms.names", ("behaviour_cloning",), facts(reward_high=0.0), ("arms.names=[real_only,trust_weighted]",)),
    ("arms.names", ("mine",), facts(reward_high=0.0), ("arms.names=[real_only,mine]", "arms.mine.learner=bc")),
]


@pytest.mark.parametrize(("setting", "value", "seen", "words"), CHOSEN)
def test_sizes_follow_the_episodes_in_one_line_each(setting, value, seen, words):
    fit, choices = fit_sizes(config(*words), seen)
    chosen = fit
    for name in setting.split("."):
        chosen = getattr(chosen, name)
    assert chosen == value
    (line,) = [str(choice) for choice in choices if choice.setting == setting]
    assert line.startswith(f"{setting} is ")
    assert line.count("\n") == 0
    again, more = fit_sizes(fit, seen)
    assert (again, more) == (fit, ())


@pytest.mark.parametrize("longest", [2, 3, 5, 9, 16, 33, 61, 300, 1500])
@pytest.mark.parametrize("count", [4, 8, 20])
def test_episodes_of_any_length_either_fit_or_are_refused_before_training(longest, count):
    found = preflight(config(), facts((longest,) * count, (longest,) * 2, (longest,) * count), ROOMY)
    if longest >= 60 or found.config.synthesis.horizon == longest:
        found.require()
    fit = found.config
    assert 2 <= fit.synthesis.horizon <= max(longest, 2)
    assert fit.dynamics.gru.horizon.steps <= longest
    assert fit.latents.segment_steps <= longest + 1
    type(fit).model_validate(fit.model_dump())


def test_episodes_of_very_different_lengths_share_a_horizon():
    mixed = (9, 30, 300, 1500) * 10
    found = preflight(config("synthesis.horizon=400"), facts(mixed, mixed, mixed), ROOMY)
    assert found.config.synthesis.horizon == 400  # a quarter of them has it
    found = preflight(config("synthesis.horizon=2000"), facts(mixed, mixed, mixed), ROOMY)
    assert found.config.synthesis.horizon == 300  # half of them have it


def test_a_few_long_episodes_are_judged_on_blocks_and_it_is_said():
    found = preflight(config(), facts((1000,) * 18, (1000,), (1000,) * 2), ROOMY)
    found.require()
    (line,) = found.lines()
    assert line.startswith("the sealed test has 2 episodes, so judges compare 22 blocks of 60 steps, 30 steps apart")


def test_few_long_episodes_are_split_otherwise_and_it_is_said():
    imported = config("episodes.source=npz", "episodes.path=a.npz")
    lines = preflight(imported, facts((1000,) * 18, (1000,), (1000,)), ROOMY).lines()
    (line,) = [line for line in lines if line.startswith("of 20 episodes 18 train; the sealed test has 1 and dev 1")]
    assert line.endswith("with 1000 and 1000 steps they are long enough")
    ordinary = facts((60,) * 12, (60,) * 3, (60,) * 5)
    assert [line for line in preflight(imported, ordinary, ROOMY).lines() if line.startswith("of 20")] == []


UNMET = [
    # stage, what the line says, the episodes, the words
    (
        "dynamics",
        "2 training episodes of 60 steps (synthesis.horizon) and finds 0 of 5; the longest has 1",
        facts((1,) * 5, (1,), (1,) * 9),
        (),
    ),
    ("judge", "4 windows of 60 steps in the sealed test (synthesis.horizon) and finds 2", facts(test=(60,) * 2), ()),
    (
        "trust",
        "2 training episodes of 60 steps for the gate (trust.num_folds) and finds 1",
        facts((60,) * 2),
        ("dynamics.gru.weights.trust=0.1",),
    ),
    ("policy", "128 training steps (policy.batch_size) and finds 1", facts((1,)), ()),
    ("policy", "room for 61 rows", facts(), ("replay.capacity=50",)),
    ("encode", "frames (latents.observation) and finds state", facts(), ("latents.observation=frames",)),
    (
        "encode",
        "changes in the training episodes (episodes.columns.observation) and finds columns 0, 1, 2, 3 constant",
        facts(still_columns=(0, 1, 2, 3)),
        (),
    ),
    ("encode", "finds neither in all episodes", facts(state_size=0), ()),
    ("evaluate", "actions in some episodes", facts(action_size=0), ("environment.id=workcell",)),
    (
        "evaluate",
        "an environment that shows a state of 4 numbers (environment.id) and finds 9",
        facts(environment={"state_size": 9, "frame_shape": None}),
        ("environment.id=workcell",),
    ),
    (
        "evaluate",
        "an environment that takes 2 actions (environment.id) and finds 7",
        facts(environment={"action_size": 7}),
        ("environment.id=workcell",),
    ),
    (
        "evaluate",
        "seeds that are not among 1000000 to 1000199",
        facts(),
        ("environment.id=workcell", "promotion.first_seed=1000100"),
    ),
    ("collect", "2 train episodes of a step or more", facts((60,)), ()),
    (
        "trust",
        "a multiple of 5 for 5 workers (trust.batch_size) and finds 48",
        facts(),
        ("resources.num_workers=5", "policy.batch_size=125"),
    ),
    ("encode", "a multiple of 3 for 3 workers (latents.num_groups) and finds 2", facts(), ("resources.num_workers=3",)),
    (
        "dynamics",
        "a multiple of 8 for 2 workers (dynamics.gru.batch_size) and finds 52",
        facts(),
        ("resources.num_workers=2", "dynamics.gru.batch_size=52"),
    ),
]


@pytest.mark.parametrize(("stage", "told", "seen", "words"), UNMET)
def test_what_would_fail_late_is_said_with_its_setting_and_what_to_do(stage, told, seen, words):
    found = preflight(config(*words), seen, ROOMY)
    lines = refusal(found, stage).splitlines()
    (line,) = [line for line in lines if told in line]
    assert line.startswith(f"{stage} needs ")
    assert "; " in line.split(" and finds ")[1]  # what to do
    assert told in refusal(found)
    others = [name for name in REQUIREMENTS if name != stage]
    assert all(told not in str(r) for r in found.requirements if r.stage in others)


FULL = [
    ("memory.encoder_episodes", "memory", facts((500,) * 500, frame_shape=(96, 96, 3)), ()),
    ("memory.gate_episodes", "memory", facts((1000,) * 900, test=(1000,) * 9), ("synthesis.horizon=1000",)),
    ("replay.capacity", "memory", facts((1000,) * 20000), ("replay.capacity=100000000",)),
    ("synthesis.num_episodes", "disk", facts((1000,) * 20000), ()),
]


@pytest.mark.parametrize(("setting", "kind", "seen", "words"), FULL)
def test_too_small_a_machine_is_said_with_the_figure_and_the_setting_that_lowers_it(setting, kind, seen, words):
    small = Machine(**{**vars(ROOMY), kind: 1_200_000_000 if kind == "memory" else 10**6})
    with pytest.raises(ClusterError) as refused:
        preflight(config(*words), seen, small).require()
    (line,) = [line for line in str(refused.value).splitlines() if f"({setting})" in line]
    assert "1.2 GB free" in line if kind == "memory" else "1 MB free at /nowhere" in line
    preflight(config(*words), seen, ROOMY).require()


def test_small_shared_memory_is_a_note_and_a_small_scratch_disk_too_a_refusal():
    found = preflight(config(), facts(), Machine(10**11, 10**11, 64 * 10**6, 10**11))
    assert any("/dev/shm has 64 MB free and resources.object_store_gb=0.5" in line for line in found.lines())
    found.require()
    full = preflight(config(), facts(), Machine(10**11, 10**11, 64 * 10**6, 10**8))
    assert "(resources.object_store_gb)" in refusal(full)


def test_a_cluster_that_is_joined_is_not_measured_by_this_machine(monkeypatch):
    monkeypatch.setattr(Machine, "here", classmethod(lambda cls, run_dir: Machine(0, 0, 0, 0)))
    preflight(config("resources.address=10.0.0.1:6379"), facts()).require()
    with pytest.raises(ClusterError):
        preflight(config(), facts()).require()


@pytest.mark.parametrize(
    ("seen", "learnable"),
    [
        (facts(), True),
        (facts(reward_high=0.0), False),
        (facts(reward_low=1.0), False),
        (facts(reward_low=1.0, num_terminated=3), True),
        (facts(reward_high=0.0, num_terminated=3), False),
        (facts(reward_low=float("nan")), True),
    ],
)
def test_rewards_that_say_nothing_are_told(seen, learnable):
    assert seen.values_can_be_learned is learnable
    told = [line for line in preflight(config(), seen, ROOMY).lines() if "values cannot be learned" in line]
    assert len(told) == (0 if learnable else 1)


def test_without_values_the_arms_that_clone_are_left_and_every_line_says_what_judges_them():
    silent = facts(reward_high=0.0)
    names = ("arms.names=[real_only,trust_weighted]",)
    lines = preflight(config(*names), silent, ROOMY).lines()
    (line,) = [line for line in lines if line.startswith("arms.names")]
    assert any(line.startswith("policy.augmentation.min_reward_skill is null, not 0.1: every") for line in lines)
    assert line.startswith("arms.names is without real_only, trust_weighted and with behaviour_cloning: every training")
    for environment, judges in (("none", "held-out actions"), ("Hopper-v5", "held-out actions and episodes in Hopper")):
        lines = preflight(config(f"environment.id={environment}"), silent, ROOMY).lines()
        assert any(f"only policies that clone are trained, and {judges}" in line for line in lines)


def test_facts_come_back_as_they_were_written(tmp_path):
    store = Store.at(str(tmp_path))
    shown = {"state_size": 4, "frame_shape": (8, 8, 3)}
    for one in (facts((5, 5, 7)), facts(frame_shape=(8, 8, 3), environment=shown), facts(reward_low=float("nan"))):
        store.write_json(one.to_json(), "facts.json")
        read = DataFacts.from_json(store.read_json("facts.json"))
        assert all((read.lengths[split] == one.lengths[split]).all() for split in one.lengths)
        assert to_jsonable(read.to_json()) == to_jsonable(one.to_json())
        assert read.environment == one.environment
