import numpy as np
import pytest

from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError, PhasebError
from phaseb.policy.behavior_metrics import action_errors, episode_errors
from phaseb.runtime.storage import Store
from phaseb.stages.evaluate import keep_rows
from phaseb.stages.held_out import compare

RUNS = [("real_only", 0), ("real_only", 1), ("trust_weighted", 0), ("trust_weighted", 1)]


def test_what_one_policy_cannot_have_the_others_keep_and_nothing_is_measured_twice(tmp_path):
    store, asked = Store.at(tmp_path), []

    def rows_of(run):
        asked.append(run)
        if run == ("real_only", 1) and asked.count(run) == 1:
            raise DataError("environment Cell failed at step 3: RuntimeError: stuck")
        return [{"seed": 7.0, "return": float(run[1])}]

    first = {(arm, seed): rows for arm, seed, rows in keep_rows(store, RUNS, rows_of)}
    error = first.pop(("real_only", 1))
    assert isinstance(error, DataError)
    assert str(error) == "real_only, seed 1: environment Cell failed at step 3: RuntimeError: stuck"
    assert len(first) == 3
    again = {(arm, seed): rows for arm, seed, rows in keep_rows(store, RUNS, rows_of)}
    assert asked == [*RUNS, ("real_only", 1)]
    assert not any(isinstance(rows, PhasebError) for rows in again.values())
    assert {run: again[run] for run in first} == first, "what is kept is what was measured"


def test_errors_are_paired_by_episode_and_dimension():
    rng = np.random.default_rng(0)
    base = 0.5 + 0.2 * rng.random((2, 12, 3))  # seeds, episodes, dimensions
    shift = np.array([0.1, 0.0, -0.2])
    told = compare({"clone": base, "other": base + shift}, "clone")
    other = told["arms"]["other"]
    assert told["num_episodes"] == 12
    assert [d["mean"] for d in other["difference_by_dimension"]] == pytest.approx(shift)
    assert all(d["high"] - d["low"] < 1e-9 for d in other["difference_by_dimension"]), "paired: the episodes cancel"
    assert other["by_dimension"][0]["high"] - other["by_dimension"][0]["low"] > 0.01
    assert "difference" not in told["arms"]["clone"]


def drawn(num):
    """Episodes of 4 to 6 steps whose last action dimension never moves."""
    rng = np.random.default_rng(num)
    arrays = {"z": rng.random((num, 7, 4), np.float32), "actions": rng.random((num, 6, 3), np.float32)}
    arrays["actions"][..., 2] = 0.25
    zeros, lengths = np.zeros((num, 6), np.float32), 4 + np.arange(num) % 3
    ids = tuple(map(str, range(num)))
    return Trajectories(**arrays, rewards=zeros, terminals=zeros, lengths=lengths, ids=ids, splits=("test",) * num)


def test_an_error_is_in_recorded_deviations_and_still_dimensions_are_left_out():
    recorded, held_out = drawn(8), drawn(3)
    spread = recorded.actions[recorded.mask].std(0)
    off = np.array([0.5, 1.0, 0.0]) * np.where(spread > 0, spread, 1)
    pairs = zip(held_out.z[:, :-1][held_out.mask], held_out.actions[held_out.mask], strict=True)
    truth = {z.tobytes(): action for z, action in pairs}
    errors = action_errors(lambda z: np.stack([truth[row.tobytes()] + off for row in z]), held_out, recorded)
    assert errors[:, :2] == pytest.approx(np.tile([0.5, 1.0], (3, 1)), rel=1e-5)
    assert np.isnan(errors[:, 2]).all()
    assert episode_errors(errors) == pytest.approx(np.full(3, np.sqrt((0.25 + 1) / 2)), rel=1e-5)
