"""Folders larger than memory: every trajectory comes once, a sample is even, and neither depends on the sharding."""

from pathlib import Path

import numpy as np
import pytest
from episode_strategies import make_episode, make_trajectories, same
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.episodes.shards import read_episodes, read_trajectories, write_episodes, write_trajectories
from phaseb.episodes.streaming import batches, lengths_of, sample_episodes, sample_trajectories, subsample
from phaseb.episodes.trajectories import Trajectories, concatenate
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

LENGTHS = [3, 5, 2, 4, 4, 3, 6, 1, 2, 5, 3]


def folder(path: Path, trajectories: Trajectories, rows_per_shard: int) -> Store:
    store = Store.at(path / f"by-{rows_per_shard}")
    write_trajectories(store, trajectories, rows_per_shard)
    return store


def assert_same(left: Trajectories, right: Trajectories) -> None:
    for name, value in vars(left).items():
        assert same(value, getattr(right, name)), name


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 12), at_once=st.integers(1, 80))
def test_batches_visit_every_trajectory_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, rows: int, at_once: int
) -> None:
    data = make_trajectories(LENGTHS)
    store = folder(tmp_path_factory.mktemp("shards"), data, rows)
    parts = list(batches(store, (), at_once))
    assert_same(concatenate(parts), read_trajectories(store))
    shard = max(n * max(LENGTHS[i : i + rows]) for i in range(0, 11, rows) if (n := len(LENGTHS[i : i + rows])))
    assert max(len(p) * p.rewards.shape[1] for p in parts) <= max(at_once, shard)


def test_what_fits_is_one_batch_and_its_own_sample(tmp_path: Path) -> None:
    data = make_trajectories(LENGTHS, splits=("train", "dev", "train", "test") * 2 + ("train",) * 3)
    store = folder(tmp_path, data, 3)
    (only,) = batches(store, ("train", "dev"))
    whole = read_trajectories(store, ("train", "dev"))
    assert_same(only, whole)
    assert_same(sample_trajectories(store, ("train", "dev"), 7, seed=1), whole)
    assert list(batches(store, ("nobody",))) == []


def test_a_sample_is_the_same_however_rows_are_sharded(tmp_path: Path) -> None:
    data = make_trajectories([3] * 40)
    drawn = [sample_trajectories(folder(tmp_path, data, rows), (), 7, seed=5) for rows in (1, 3, 8, 40)]
    for other in drawn[1:]:
        assert_same(drawn[0], other)
    assert len(drawn[0]) == 7
    assert list(drawn[0].ids) == [name for name in data.ids if name in set(drawn[0].ids)]
    backwards = folder(tmp_path / "backwards", data.select(range(39, -1, -1)), 8)
    assert set(sample_trajectories(backwards, (), 7, seed=5).ids) == set(drawn[0].ids)


def test_a_smaller_sample_is_part_of_a_larger_one(tmp_path: Path) -> None:
    store = folder(tmp_path, make_trajectories([2] * 30), 4)
    few, many = (sample_trajectories(store, (), most, seed=2) for most in (5, 12))
    assert set(few.ids) < set(many.ids)
    assert subsample(many, 5, seed=2).ids == few.ids
    assert subsample(many, 12, seed=2) is many


def test_a_sample_is_even_over_seeds(tmp_path: Path) -> None:
    store = folder(tmp_path, make_trajectories([2] * 12), 5)
    counts = np.zeros(12)
    names = {name: i for i, name in enumerate(read_trajectories(store).ids)}
    for seed in range(300):
        for name in sample_trajectories(store, (), 3, seed).ids:
            counts[names[name]] += 1
    expected = 300 * 3 / 12
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < 31.3  # 99.9 % of 11 degrees of freedom; the seeds are fixed, so it always is the same


def test_every_split_has_its_own_bound_and_short_ones_may_be_left_out(tmp_path: Path) -> None:
    splits = ("train",) * 8 + ("dev",) * 3
    store = folder(tmp_path, make_trajectories(LENGTHS, splits=splits), 4)
    drawn = sample_trajectories(store, ("train", "dev"), 4, seed=0)
    assert [drawn.splits.count(name) for name in ("train", "dev")] == [4, 3]
    long = sample_trajectories(store, ("train",), 2, seed=0, min_steps=4)
    assert len(long) == 2
    assert long.lengths.min() >= 4
    assert lengths_of(store, ("dev",)).tolist() == LENGTHS[8:]
    assert lengths_of(store).tolist() == LENGTHS


def test_episodes_are_sampled_as_their_latents_are(tmp_path: Path) -> None:
    episodes = [make_episode(f"e{i}", 3, seed=i) for i in range(20)]
    store = Store.at(tmp_path / "episodes")
    write_episodes(store, episodes, 3)
    drawn = sample_episodes(store, (), 6, seed=9)
    trajectories = make_trajectories([3] * 20)
    named = Trajectories(**{**vars(trajectories), "ids": tuple(e.id for e in episodes)})
    assert [e.id for e in drawn] == list(sample_trajectories(folder(tmp_path, named, 7), (), 6, seed=9).ids)
    everything = sample_episodes(store, (), 20, seed=9)
    assert [e.id for e in everything] == [e.id for e in read_episodes(store)]


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_episodes(Store.at(tmp_path), [make_episode("e", 3)])
    with pytest.raises(DataError, match="holds episodes, not phaseb trajectories"):
        next(batches(Store.at(tmp_path)))
    with pytest.raises(DataError, match="no shards"):
        sample_trajectories(Store.at(tmp_path / "nowhere"), (), 3, seed=0)
