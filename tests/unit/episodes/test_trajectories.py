import numpy as np
import pytest
from episode_strategies import make_trajectories, same, trajectory_sets
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.episodes.trajectories import Trajectories, concatenate


def test_the_mask_is_true_at_real_steps() -> None:
    assert make_trajectories([2, 3, 1]).mask.astype(int).tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]


@settings(max_examples=30, deadline=None)
@given(trajectory_sets(), st.data())
def test_select_takes_every_column_along(t: Trajectories, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(t) - 1), max_size=9))
    chosen = t.select(rows)
    assert chosen.ids == tuple(t.ids[i] for i in rows)
    for name in ("z", "rewards", "lengths", "start_step", "uncertainty", "trust", "weights", "episode_trust"):
        before, after = getattr(t, name), getattr(chosen, name)
        assert (before is None) == (after is None)
        assert before is None or same(np.ascontiguousarray(before[np.array(rows, int)]), after)
    assert chosen.lineage["model"] == tuple(t.lineage["model"][i] for i in rows)
    np.testing.assert_array_equal(chosen.metrics["mpl"], t.metrics["mpl"][np.array(rows, int)])


def test_a_mask_and_split_names_select() -> None:
    t = make_trajectories([2, 3, 1, 2], splits=("train", "dev", "train", "test"))
    assert t.select(np.array([True, False, False, True])).ids == ("t0", "t3")
    assert t.split("train").ids == ("t0", "t2")
    assert t.split("dev", "test").ids == ("t1", "t3")
    assert len(t.split("nowhere")) == 0


def test_at_least_keeps_long_ones_cut_to_size() -> None:
    t = make_trajectories([2, 5, 3])
    cut = t.at_least(3)
    assert (cut.ids, cut.lengths.tolist()) == (("t1", "t2"), [3, 3])
    assert (cut.z.shape, cut.rewards.shape) == ((2, 4, 4), (2, 3))
    np.testing.assert_array_equal(cut.z[0], t.z[1, :4])


def test_concatenate_pads_the_shorter_and_keeps_what_all_have() -> None:
    short, long = make_trajectories([2, 1], trust=True), make_trajectories([4], trust=False)
    both = concatenate([short, long])
    assert both.lengths.tolist() == [2, 1, 4]
    assert both.rewards.shape == (3, 4)
    np.testing.assert_array_equal(both.z[0, 2:], np.repeat(short.z[0, 2:3], 3, axis=0))  # the last observation, again
    assert not both.rewards[0, 2:].any()
    assert both.trust is None
    assert concatenate([short, short]).trust is not None
    np.testing.assert_array_equal(concatenate([both.select([0, 1]), both.select([2])]).z, both.z)


@pytest.mark.parametrize("name", ["z", "actions", "terminals", "lengths", "trust", "episode_trust", "ids", "splits"])
def test_columns_that_do_not_fit_each_other_are_refused(name: str) -> None:
    t = make_trajectories([2, 3], trust=True)
    fields = {field: getattr(t, field) for field in t.__dataclass_fields__}
    fields["episode_trust"] = np.ones(2, np.float32)
    fields[name] = fields[name][:1]
    with pytest.raises(ValueError, match=name):
        Trajectories(**fields)


def test_neighbours_are_views_and_one_split_after_the_other_makes_neighbours() -> None:
    t = make_trajectories([3, 2, 3, 1], splits=("dev", "train", "dev", "train"))
    assert not np.shares_memory(t.split("train").z, t.z)
    sorted_ = t.by_split("train", "dev")
    assert sorted_.splits == ("train", "train", "dev", "dev")
    assert same(vars(sorted_.split("train")), vars(t.split("train")))
    for name in ("train", "dev"):
        assert np.shares_memory(sorted_.split(name).z, sorted_.z)
    assert len(t.select([])) == len(t.split("test")) == 0
