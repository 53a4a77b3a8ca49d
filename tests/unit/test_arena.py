"""The arena: its worlds are those that the data were recorded in, and its table says what its rows say."""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FIXTURE = Path(__file__).parents[1] / "fixtures" / "arena-transitions.npz"


@pytest.fixture(scope="module", autouse=True)
def _benchmarks_importable():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def worlds():
    return importlib.import_module("arena_worlds")


def recorded(task: str, count: int) -> dict[str, np.ndarray]:
    """State, action, reward, next state of recorded transitions: of the data where they are at hand, else a few."""
    folder = os.environ.get("PHASEB_ARENA", "")
    if not folder:
        with np.load(FIXTURE) as file:
            return {name.partition("/")[2]: file[name] for name in file.files if name.startswith(task)}
    with np.load(Path(folder) / f"{task}-train.npz") as file:
        state, action, reward = (file[name] for name in ("observations", "actions", "rewards"))
    pairs = [state[:, :-1], action, reward, state[:, 1:]]
    chosen = np.random.default_rng(0).choice(reward.size, count, replace=False)
    flat = (array.reshape(reward.size, *array.shape[2:])[chosen] for array in pairs)
    return dict(zip(("state", "action", "reward", "next"), flat, strict=True))


def test_dmsd_is_the_recorded_one(worlds):
    seen = recorded("dmsd", 5000)
    made = worlds.dmsd_step(seen["state"][:, :4].astype(float), seen["action"].astype(float))
    np.testing.assert_allclose(made, seen["next"][:, :4], atol=1e-6)
    np.testing.assert_allclose(worlds.dmsd_reward(made, seen["next"][:, 4:]), seen["reward"], atol=2e-5)


def test_safety_half_cheetah_is_the_recorded_one(worlds):
    seen, world = recorded("safety-half-cheetah", 200), worlds.SafetyHalfCheetah()
    world.reset(seed=0)
    for state, action, reward, after in zip(*(seen[n] for n in ("state", "action", "reward", "next")), strict=True):
        world.set_state(state[:9].astype(float), state[9:].astype(float))
        observation, earned, terminated, truncated, _ = world.step(action)
        np.testing.assert_allclose(observation, after, atol=1e-3)
        assert earned == pytest.approx(float(reward), abs=1e-5)
        assert (terminated, truncated) == (False, False)
    world.close()


def test_the_cheetah_is_fined_above_the_speed_limit(worlds):
    world = worlds.SafetyHalfCheetah()
    world.reset(seed=0)
    world.set_state(world.data.qpos.copy(), np.eye(9)[0] * 6)
    assert world.step(np.zeros(6, np.float32))[1] == -100
    world.set_state(world.data.qpos.copy(), np.zeros(9))
    assert world.step(np.zeros(6, np.float32))[1] > -1
    world.close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "steps"), [("DMSD", 100), ("SafetyHalfCheetah", 1000)])
def test_worlds_keep_gymnasiums_api_and_end_by_their_time_limit(worlds, name, steps):
    world = getattr(worlds, name)()
    check_env(world, skip_render_check=True)
    world.reset(seed=3)
    flags = [world.step(world.action_space.sample())[2:4] for _ in range(steps)]
    assert flags == [(False, False)] * (steps - 1) + [(False, True)]


def test_targets_of_dmsd_change_half_way_in_every_second_mass(worlds):
    world, moved = worlds.DMSD(), []
    for seed in range(200):
        seen = [world.reset(seed=seed)[0][4:]] + [world.step(np.zeros(2))[0][4:] for _ in range(100)]
        changes = np.argwhere(np.diff(seen, axis=0))
        assert set(changes[:, 0]) <= {49}
        moved.append(len(changes) / 2)
    assert 0.4 < np.mean(moved) < 0.6


def row(task, seed, candidate, real, data=40.0, clone=35.0, shipped="real_only", **more):
    scores = {"behaviour_cloning": clone, "real_only": real, "trust_weighted": candidate}
    arms = {name: {"scores": [score - 1, score + 1], "synthetic": None} for name, score in scores.items()}
    counts = {"num_train": 15, "num_dev": 2, "num_test": 4, "core_minutes": 9.0}
    return {"task": task, "seed": seed, "data": data, "arms": arms, "shipped": shipped, **counts, **more}


def test_harm_and_gain_are_paired_by_seed():
    page = importlib.import_module("arena_page")
    rows = [row("dmsd-15", 0, 52, 50), row("dmsd-15", 1, 44, 40)]
    rows.append({"task": "dmsd-15", "seed": 0, "peer": "IQL", "scores": [90, 90]})  # not of every seed: no opponent
    best, (mean, low, high) = page.gain(rows)
    assert (best, mean) == ("real_only", 3.0)
    assert low < 0 < high  # 2 and 4, two seeds
    assert page.harm(rows)[0] == pytest.approx((10 + 0) / 2)
    rows.append({"task": "dmsd-15", "seed": 1, "peer": "IQL", "scores": [90, 90]})
    assert page.gain(rows)[0] == "d3rlpy IQL"
    assert page.gain(rows)[1][0] == pytest.approx(48 - 90)


def test_the_table_has_a_line_for_every_task_that_was_run():
    page = importlib.import_module("arena_page")
    lines = page.table([row("dmsd-15", 0, 52, 50)]).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| dmsd-15 | 1 | 15, 2, 4 | 40.0 |")
    assert len({line.count("|") for line in lines}) == 1
    assert "+2.0 [+2.0, +2.0] on real_only" in lines[2]


def test_generators_are_counted_over_runs_that_were_judged():
    page = importlib.import_module("arena_page")
    numbers = dict.fromkeys(page.GENERATOR_NUMBERS, 0.5)
    found = [
        {"generator": "gru", "chosen": True, "better": False, **numbers},
        {"generator": "gp", "chosen": False, "better": True, **(numbers | {"nrmse": 0.25})},
    ]
    failed = [
        {"generator": "gru", "chosen": False, "failed": "it diverges"},
        {**found[1], "chosen": True, "nrmse": 0.75},
    ]
    rows = [
        row("dmsd-15", 0, 52, 50, form="judged", generators=found),
        row("dmsd-15", 1, 52, 50, form="whole", generators=failed),
        row("dmsd-15", 2, 52, 50, form="lean", generators=found),
        {"task": "dmsd-15", "seed": 0, "peer": "IQL", "scores": [90, 90]},
    ]
    _, _, gru, gp, _, said = page.generators_table(rows).splitlines()
    assert gru.startswith("| dmsd-15 | gru | 2 | 1 | 0 | 0.50 |")
    assert gp.startswith("| dmsd-15 | gp | 2 | 1 | 2 | ")
    assert "| 0.50 |" in gp, "the mean of 0.25 and 0.75"
    assert said == "The generator that serves is physics' better one in 1 of 2 runs."
    assert page.generators_table(rows[2:]) == "Generators were not judged yet."


def test_a_piece_of_an_endless_task_is_scored_by_its_reward_a_step():
    tasks = importlib.import_module("arena_tasks")
    assert tasks.TASKS["dmsd-50"].score(849.51) == pytest.approx(100)
    assert tasks.TASKS["halfcheetah-medium-1pct"].score(-280.18) == pytest.approx(0)
