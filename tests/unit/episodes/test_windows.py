"""Windows of long episodes: all of one length, none overlapping, from all over, and of the episode that they name."""

import itertools
from dataclasses import replace

import numpy as np
from episode_strategies import make_trajectories
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.episodes.windows import gap_of, windows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=8), st.integers(1, 30), st.integers(0, 5))
def test_windows_are_parts_of_their_episodes_with_gaps_between(lengths, steps, seed):
    data = make_trajectories(lengths)
    found = windows(data, steps, seed)
    assert len(set(found.ids)) == len(found)
    assert {data.ids[i] for i, length in enumerate(lengths) if length >= steps} == set(found.lineage["start_episode"])
    for i, (name, start) in enumerate(zip(found.lineage["start_episode"], found.start_step, strict=True)):
        row = data.ids.index(name)
        assert 0 <= start <= lengths[row] - steps
        np.testing.assert_array_equal(found.z[i], data.z[row, start : start + steps + 1])
        np.testing.assert_array_equal(found.rewards[i], data.rewards[row, start : start + steps])
    for name in set(found.lineage["start_episode"]):
        mine = sorted(s for s, of in zip(found.start_step, found.lineage["start_episode"], strict=True) if of == name)
        assert all(b - a == steps + gap_of(steps) for a, b in itertools.pairwise(mine))


def test_episodes_of_that_length_are_their_own_windows():
    data = make_trajectories([7, 3, 7])
    found, kept = windows(data, 7, 0), data.at_least(7)
    assert found.ids == kept.ids
    np.testing.assert_array_equal(found.z, kept.z)


def test_no_part_of_a_long_episode_is_never_seen():
    data = make_trajectories([100])
    seen = np.zeros(100, bool)
    for seed in range(200):
        for start in windows(data, 60, seed).start_step:
            seen[start : start + 60] = True
    assert seen.all()


def test_a_window_of_a_window_counts_its_steps_from_the_episode():
    data = replace(make_trajectories([40]), start_step=np.array([5]), lineage={"start_episode": ("whole",)})
    found = windows(data, 10, 1)
    assert set(found.lineage["start_episode"]) == {"whole"}
    assert (found.start_step >= 5).all()
