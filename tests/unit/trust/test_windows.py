"""Windows of the test episodes: an episode stays in one fold, unless blocks of a few long ones stand in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.episodes.trajectories import Trajectories
from phaseb.trust.ladder import floor_pairs
from phaseb.trust.windows import MIN_UNITS, PAIRS_A_FOLD, plan_windows


def test_episodes_of_just_that_length_are_judged_as_they_are():
    plan = plan_windows(np.full(200, 60), 60, 5)
    assert (plan.rows == np.arange(200)).all()
    assert not plan.starts.any()
    assert (plan.blocks, plan.num_folds, plan.floor, plan.sentence()) == (False, 5, True, "")


def test_two_long_episodes_are_judged_on_blocks_with_a_gap_and_it_is_said():
    plan = plan_windows(np.array([1000, 1000]), 60, 5)
    assert plan.blocks
    assert (plan.num_units, plan.num_folds, plan.floor) == (22, 5, True)
    assert plan.sentence().startswith("Judged on 22 blocks of 60 steps, 30 steps apart, of 2 test episodes")
    assert plan.to_json()["blocks"] is True


@pytest.mark.parametrize(("episodes", "folds", "floor"), [(20, 5, True), (12, 3, True), (9, 2, True), (7, 3, False)])
def test_folds_follow_the_number_of_episodes(episodes, folds, floor):
    """Twenty are needed for the floor at five folds; fewer get fewer folds, and below eight there is no floor."""
    plan = plan_windows(np.full(episodes, 60), 60, 5)
    assert (plan.blocks, plan.num_folds, plan.floor) == (False, folds, floor)


def test_a_first_window_of_each_episode_comes_before_any_second_one():
    plan = plan_windows(np.array([400] * 10), 60, 5, most=13)
    assert plan.rows.tolist() == [*range(10), 0, 1, 2]
    assert plan.starts.tolist() == [0] * 10 + [90] * 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1500), max_size=30), st.integers(1, 100), st.integers(2, 20))
def test_windows_lie_within_their_episodes_and_never_touch(lengths, steps, folds):
    plan = plan_windows(np.array(lengths, dtype=np.int64), steps, folds)
    assert all(start + steps <= lengths[row] for row, start in zip(plan.rows, plan.starts, strict=True))
    for row in set(plan.rows.tolist()):
        assert (np.diff(np.sort(plan.starts[plan.rows == row])) >= steps + plan.gap).all()
    if plan.num_units >= MIN_UNITS:
        assert plan.num_units >= PAIRS_A_FOLD * plan.num_folds * (2 if plan.floor else 1)
    assert len(np.unique(plan.groups)) == plan.num_units


def test_windows_are_cut_where_the_plan_says():
    steps = np.arange(101, dtype=np.float32)
    z = np.stack([steps, steps + 1000])[..., None]
    data = Trajectories(
        z=z,
        actions=z[:, :-1],
        rewards=z[:, :-1, 0],
        terminals=np.zeros((2, 100), np.float32),
        lengths=np.array([100, 70]),
        ids=("a", "b"),
        splits=("test", "test"),
    )
    plan = plan_windows(data.lengths, 20, 2)
    cut = plan.cut(data)
    assert cut.ids == ("a", "b") * 2 + ("a",)
    assert cut.z[:, 0, 0].tolist() == [0, 1000, 30, 1030, 60]
    assert (np.diff(cut.z[..., 0], axis=1) == 1).all()
    assert (cut.actions[..., 0] == cut.z[:, :-1, 0]).all()
    assert cut.lengths.tolist() == [20] * 5


def test_the_floor_pairs_windows_of_different_episodes():
    z = np.repeat(np.arange(4, dtype=np.float32), 3)[:, None, None] * np.ones((1, 5, 2), np.float32)
    groups = np.repeat(np.arange(4), 3)
    pairs = floor_pairs(z, np.zeros((12, 4, 1), np.float32), 0, groups)
    assert len(pairs.real) == 6
    assert (pairs.real[:, 0, 0] != pairs.synthetic[:, 0, 0]).all()
    assert pairs.groups is not None
    assert pairs.groups.tolist() == [0, 0, 0, 1, 1, 1]
