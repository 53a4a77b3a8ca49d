"""Constancy is free of scale, and single precision is used where it holds what was recorded."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot_writer import write_lerobot
from minari_writer import write_minari

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.resolution import compact, is_constant, spread_of
from phaseb.episodes.schema import episodes_to_table, table_to_episodes
from phaseb.episodes.sources import open_source


def rows(*columns):
    return np.stack(columns, axis=1)


def test_a_clock_and_a_sensor_in_small_units_move_and_a_flicker_does_not():
    g = np.random.default_rng(0)
    clock = 1.7e9 + np.arange(50.0)
    small = 1e-9 * g.standard_normal(50)
    flicker = np.where(g.random(50) < 0.5, np.float32(0.3), np.nextafter(np.float32(0.3), np.float32(1)))
    assert is_constant(rows(clock, small, np.full(50, 0.1))).tolist() == [False, False, True]
    assert is_constant(rows(small.astype(np.float32), flicker, np.zeros(50, np.float32))).tolist() == [
        False,
        True,
        True,
    ]
    assert is_constant(np.array([[2**40], [2**40 + 1]])).tolist() == [False], "whole numbers are exact"


@settings(deadline=None)
@given(st.floats(1e-20, 1e20), st.integers(0, 5))
def test_the_unit_of_a_column_never_makes_it_constant(unit, seed):
    values = np.random.default_rng(seed).standard_normal((30, 2))
    values[:, 1] = 0.5
    assert is_constant(unit * values).tolist() == [False, True]
    np.testing.assert_allclose(spread_of(unit * values), [unit * values[:, 0].std(), 1.0])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.random.default_rng(0).standard_normal((40, 3)), np.float32),
        (1.7e9 + np.arange(40.0)[:, None], np.float64),
        (1e7 + 1e-3 * np.random.default_rng(0).standard_normal((40, 2)), np.float64),
        (1e-60 * np.random.default_rng(0).standard_normal((40, 2)), np.float64),
        (np.full((40, 1), 0.1), np.float32),
        (np.arange(40, dtype=np.int64)[:, None], np.float32),
        (np.full((2, 1), 1e300) * [[1], [2]], np.float32),  # beyond single precision: refused as infinite
    ],
)
def test_double_precision_is_kept_where_single_cannot_hold_a_column(values, dtype):
    assert compact(values).dtype == dtype


def test_states_in_double_precision_survive_a_shard_beside_others():
    far = 1e7 + 1e-3 * np.random.default_rng(0).standard_normal((4, 2))
    rewards = np.zeros(3, np.float32)
    episodes = [
        Episode(id="a", rewards=rewards, state=far),
        Episode(id="b", rewards=rewards, state=far.astype(np.float32)),
    ]
    a, b = table_to_episodes(episodes_to_table(episodes))
    np.testing.assert_array_equal(a.state, far)
    np.testing.assert_array_equal(b.state, far.astype(np.float32))
    assert {a.state.dtype, b.state.dtype} == {np.dtype(np.float64)}


def test_a_column_that_stands_still_in_a_part_of_the_data_is_kept_exactly():
    still = np.full((40, 1), 1e7 + 1e-3)
    assert compact(still).dtype == np.float32
    assert compact(still, whole=False).dtype == np.float64
    assert compact(np.full((40, 1), 0.5), whole=False).dtype == np.float32


FAR = 1e7 + 1e-3 * np.random.default_rng(1).standard_normal((2, 6, 2)).cumsum(axis=1)
GOAL = np.broadcast_to(1e7 + 1e-3 * np.arange(2)[:, None, None], (2, 6, 1))


def far_from_the_origin(folder: Path, layout: str) -> EpisodesConfig:
    """Two episodes of 6 rows whose states single precision cannot hold, in one of the layouts that are read."""
    states, actions, rewards = np.concatenate([FAR, GOAL], axis=2), np.full((2, 6, 1), 0.5), np.ones((2, 6))
    if layout == "lerobot":
        rows = [
            {"observation.state": s, "action": a, "next.reward": r}
            for s, a, r in zip(states, actions, rewards, strict=True)
        ]
        return EpisodesConfig(source="lerobot", path=str(write_lerobot(folder / "d", rows)))
    if layout == "minari":
        space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        write_minari(folder / "d", "hdf5", space, list(states[0]))
        return EpisodesConfig(source="minari", path=str(folder / "d"))
    with h5py.File(folder / "d.hdf5", "w") as file:
        if layout == "d4rl":
            file["observations"], file["actions"] = states.reshape(12, 3), actions.reshape(12, 1)
            file["rewards"], file["timeouts"] = rewards.reshape(-1), np.arange(12) % 6 == 5
        else:
            for i in range(2):
                demo = file.create_group(f"data/demo_{i}")
                demo["obs/pose"], demo["obs/goal"], demo["actions"] = states[i, :, :2], states[i, :, 2:], actions[i]
                demo["rewards"], demo["dones"] = rewards[i], np.zeros(6)
    return EpisodesConfig(source="hdf5", path=str(folder / "d.hdf5"))


@pytest.mark.parametrize("layout", ["d4rl", "robomimic", "lerobot", "minari"])
def test_every_reader_keeps_what_single_precision_cannot_hold(tmp_path, layout):
    source = open_source(far_from_the_origin(tmp_path, layout))
    for i, episode in enumerate(source.read(range(len(source.entries())))):
        assert episode.state.dtype == np.float64
        columns = [0, 1, 2] if layout != "robomimic" else [1, 2, 0]
        np.testing.assert_array_equal(episode.state[:, columns], np.concatenate([FAR, GOAL], axis=2)[i])
