"""The arena's script from recorded episodes to its table, in its quick form."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from program import RETRY_S, environment

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "arena.py"
pytestmark = pytest.mark.nightly


def record(path: Path, count: int, seed: int) -> None:
    """Episodes of a noisy proportional controller in DMSD, in the layout of the public files."""
    sys.path.insert(0, str(SCRIPT.parent))
    from arena_worlds import DMSD

    rng, world = np.random.default_rng(seed), DMSD()
    arrays: dict[str, list] = {"observations": [], "actions": [], "rewards": []}
    for i in range(count):
        seen, actions, rewards = [world.reset(seed=seed + i)[0]], [], []
        for _ in range(100):
            actions.append(np.clip(2 * (seen[-1][4:] - seen[-1][:2]) + 0.3 * rng.standard_normal(2), -1, 1))
            observation, reward, *_ = world.step(actions[-1])
            seen.append(observation)
            rewards.append(reward)
        for name, rows in zip(arrays, (seen, actions, rewards), strict=True):
            arrays[name].append(np.array(rows, np.float32))
    np.savez(path, **{name: np.stack(rows) for name, rows in arrays.items()}, terminals=np.zeros((count, 100)))


def arena(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, "--tasks", "dmsd-15", "--seeds", "0", "--dir", folder / "runs"]
    return subprocess.run(
        [*map(str, command), "--out", str(folder / "rows.jsonl"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment() | {"PHASEB_ARENA": str(folder), "PYTHONPATH": str(ROOT)},
        timeout=RETRY_S,
        check=False,
    )


def test_a_task_becomes_a_row_once_and_a_line_of_the_table(tmp_path):
    record(tmp_path / "dmsd-train.npz", 20, 0)
    record(tmp_path / "dmsd-val.npz", 10, 1000)
    done = arena(tmp_path, "--quick")
    assert done.returncode == 0, done.stderr + done.stdout
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert (row["num_train"], row["num_dev"], row["num_test"]) == (15, 2, 4)
    assert {"behaviour_cloning", "real_only", "real_only_edac", "real_only_sac", "trust_weighted"} <= row["arms"].keys()
    assert all(len(arm["scores"]) == 4 and np.isfinite(arm["scores"]).all() for arm in row["arms"].values())
    assert row["shipped"] in row["arms"]
    assert {one["generator"] for one in row["generators"]} == {"gru", "gp"}
    assert row["core_minutes"] > 0
    with np.load(tmp_path / "runs" / "dmsd-15-0" / "train.npz") as peers:
        assert peers["observations"].shape == (1500, 6)
        assert peers["timeouts"].sum() == 15
    again = arena(tmp_path, "--quick")
    assert again.stdout == done.stdout
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 1
    assert "| dmsd-15 | 1 | 15, 2, 4 |" in done.stdout


def test_a_refused_run_is_said_and_no_row_is_written(tmp_path):
    record(tmp_path / "dmsd-train.npz", 20, 0)
    record(tmp_path / "dmsd-val.npz", 10, 1000)
    done = arena(tmp_path, "--quick", "policy.batch_size=100000", "replay.capacity=50")
    assert done.returncode == 1
    assert "dmsd-15, seed 0: exit code 3" in done.stderr
    assert not (tmp_path / "rows.jsonl").exists()


def test_without_the_data_it_says_what_to_set(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--tasks", "dmsd-15", "--out", str(tmp_path / "rows.jsonl")],
        cwd=tmp_path,
        env=environment() | {"PHASEB_ARENA": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "PHASEB_ARENA='' is no folder: set it to the folder of the arena's NPZ files" in done.stderr
