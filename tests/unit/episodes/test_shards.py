import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from episode_strategies import episode_lists, make_episode, same, trajectory_sets
from hypothesis import given, settings

from phaseb.episodes import shards
from phaseb.episodes.episode import Episode
from phaseb.episodes.schema import TRAJECTORIES, episodes_to_table, table_to_episodes
from phaseb.episodes.streaming import batches
from phaseb.episodes.trajectories import Trajectories
from phaseb.episodes.trajectory_schema import table_to_trajectories, trajectories_to_table
from phaseb.errors import DataError
from phaseb.runtime.storage import Store


def make_trajectories() -> Trajectories:
    rng = np.random.default_rng(0)
    sizes = {"z": (3, 6, 2), "actions": (3, 5, 1), "rewards": (3, 5), "terminals": (3, 5)}
    arrays = {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    return Trajectories(**arrays, lengths=np.full(3, 5), ids=("a", "b", "c"), splits=("train",) * 3)


def assert_same(left: Episode | Trajectories, right: Episode | Trajectories) -> None:
    for field in dataclasses.fields(left):
        assert same(getattr(left, field.name), getattr(right, field.name)), field.name


@settings(max_examples=60, deadline=None)
@given(episode_lists())
def test_an_episode_comes_back_from_arrow_equal_to_the_bit(episodes: list[Episode]) -> None:
    for before, after in zip(episodes, table_to_episodes(episodes_to_table(episodes)), strict=True):
        assert_same(before, after)


@settings(max_examples=60, deadline=None)
@given(trajectory_sets())
def test_trajectories_come_back_from_arrow_equal_to_the_bit(trajectories: Trajectories) -> None:
    assert_same(trajectories, table_to_trajectories(trajectories_to_table(trajectories)))


@settings(max_examples=15, deadline=None)
@given(episode_lists())
def test_shards_hold_what_was_written(tmp_path_factory: pytest.TempPathFactory, episodes: list[Episode]) -> None:
    store = Store.at(tmp_path_factory.mktemp("shards"))
    names = shards.write_episodes(store, episodes, rows_per_shard=2)
    assert len(names) == -(-len(episodes) // 2)
    for before, after in zip(episodes, shards.read_episodes(store), strict=True):
        assert_same(before, after)


@settings(max_examples=15, deadline=None)
@given(trajectory_sets())
def test_trajectory_shards_hold_what_was_written(tmp_path_factory: pytest.TempPathFactory, t: Trajectories) -> None:
    store = Store.at(tmp_path_factory.mktemp("shards"))
    shards.write_trajectories(store, t, rows_per_shard=3)
    assert_same(t, shards.read_trajectories(store))


def test_the_same_episodes_give_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        store = Store.at(tmp_path / name)
        shards.write_episodes(store, [make_episode(f"e{i}", 5 + i, frames=True) for i in range(4)], 2)
        written.append([store.read_bytes(shard) for shard in shards.shard_names(store)])
    assert written[0] == written[1]


def test_splits_are_chosen_and_frames_left_out(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    roles = ["train", "dev", "test", "train"]
    shards.write_episodes(store, [make_episode(f"e{i}", 4, frames=True, split=r) for i, r in enumerate(roles)], 3)
    found = shards.read_episodes(store, splits=("train",), frames=False)
    assert [(e.id, e.frames) for e in found] == [("e0", None), ("e3", None)]
    assert [e.id for e in shards.read_episodes(store, splits=("dev", "test"))] == ["e1", "e2"]


def test_a_split_without_trajectories_is_an_empty_set(tmp_path: Path) -> None:
    z = np.ones((1, 3, 2), np.float32)
    one = Trajectories(z, z[:, 1:], z[:, 1:, 0], 0 * z[:, 1:, 0], np.array([2]), ("a",), ("train",))
    shards.write_trajectories(Store.at(tmp_path), one)
    none = shards.read_trajectories(Store.at(tmp_path), splits=("test",))
    assert len(none) == 0
    assert none.z.shape[2] == 2


def test_a_digest_sees_content_and_not_sharding_or_order(tmp_path: Path) -> None:
    episodes = [make_episode(f"e{i}", 5, seed=i) for i in range(5)]
    stores = [Store.at(tmp_path / str(i)) for i in range(3)]
    shards.write_episodes(stores[0], episodes, 2)
    shards.write_episodes(stores[1], episodes[::-1], 3)
    assert episodes[2].actions is not None
    nudged = np.nextafter(episodes[2].actions, np.float32(9))
    shards.write_episodes(stores[2], [*episodes[:2], dataclasses.replace(episodes[2], actions=nudged), *episodes[3:]])
    digests = [shards.digest(store) for store in stores]
    assert digests[0] == digests[1] != digests[2]


def test_fewer_shards_replace_more(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    shards.write_episodes(store, [make_episode(f"e{i}", 3) for i in range(5)], 1)
    shards.write_episodes(store, [make_episode("only", 3)], 1)
    assert [e.id for e in shards.read_episodes(store)] == ["only"]


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    names = shards.write_episodes(store, [make_episode(f"e{i}", 3) for i in range(3)], 1)
    store.delete(names[1])
    with pytest.raises(DataError, match=r"part-00001-of-00003\.parquet is missing"):
        shards.read_episodes(store)
    with pytest.raises(DataError, match="no shards"):
        shards.read_episodes(Store.at(tmp_path / "nowhere"))


def test_an_altered_row_is_noticed_even_where_the_file_is_sound(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    (name,) = shards.write_episodes(store, [make_episode("e0", 3)])
    table = pq.read_table(tmp_path / name)
    at = table.column_names.index("split")
    pq.write_table(table.set_column(at, "split", pa.array(["train"])), tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}.*e0 was altered"):
        shards.read_episodes(store)


def test_altered_trajectories_are_noticed_also_where_the_file_was_sound_before(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    (name,) = shards.write_trajectories(store, make_trajectories())
    read = (shards.read_trajectories, lambda store: shards.read_shard(store, name), lambda store: next(batches(store)))
    for _ in range(2):
        for reader in read:
            assert_same(reader(store), make_trajectories())
    table = pq.read_table(tmp_path / name)
    rewards = pa.array([[r + 1 for r in row] for row in table["rewards"].to_pylist()], table["rewards"].type)
    pq.write_table(table.set_column(table.column_names.index("rewards"), "rewards", rewards), tmp_path / name)
    for reader in read:
        with pytest.raises(DataError, match=r"was altered: a row's digest"):
            reader(store)


def test_rows_are_hashed_once_a_file_and_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, hashed = Store.at(tmp_path), []
    monkeypatch.setattr(shards, "check_rows", lambda table: hashed.append(table.num_rows))
    (name,) = shards.write_trajectories(store, make_trajectories())
    shards.choose_rows(store, name, TRAJECTORIES, lambda table: np.array([1]))
    shards.read_trajectories(store)
    shards.read_shard(store, name)
    assert hashed == [1, 3], "a part first, then all, then none"
    shards.write_trajectories(store, make_trajectories())
    shards.read_trajectories(store)
    assert hashed == [1, 3, 3], "written again, so another file"


def test_kinds_versions_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    (name,) = shards.write_episodes(store, [make_episode("e0", 3)])
    with pytest.raises(DataError, match="holds episodes, not phaseb trajectories"):
        shards.read_trajectories(store)
    table = pq.read_table(tmp_path / name)
    later = {**table.schema.metadata, b"phaseb.version": b"999"}
    pq.write_table(table.replace_schema_metadata(later), tmp_path / name)
    with pytest.raises(DataError, match="version '999'"):
        shards.read_episodes(store)
    pq.write_table(pa.table({"x": [1]}), tmp_path / name)
    with pytest.raises(DataError, match=name):
        shards.read_episodes(store)


def test_episodes_of_different_sizes_do_not_mix() -> None:
    with pytest.raises(DataError, match=r"state dimensions: \[3, 4\]"):
        episodes_to_table([make_episode("a", 2), make_episode("b", 2, state=4)])


def test_frames_that_unpack_to_too_much_are_refused() -> None:
    table = episodes_to_table([make_episode("a", 9, frames=True)])
    assert len(table_to_episodes(table, max_bytes=10 * 60)) == 1
    with pytest.raises(DataError, match="max_bytes=599"):
        table_to_episodes(table, max_bytes=599)


def test_every_mutated_file_is_a_data_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    store = Store.at(tmp_path)
    (name,) = shards.write_episodes(store, [make_episode(f"e{i}", 6, frames=True, tags={"a": "b"}) for i in range(3)])
    whole = store.read_bytes(name)
    for trial in range(80):
        broken = bytearray(whole)
        if trial % 4 == 0:
            broken = broken[: rng.integers(0, len(whole))]
        elif trial % 4 == 1:  # the footer, where the structure is
            broken[rng.integers(len(whole) - 4000, len(whole))] ^= int(rng.integers(1, 256))
        else:
            for at in rng.integers(4, len(whole), rng.integers(1, 20)):
                broken[at] ^= int(rng.integers(1, 256))
        store.write_bytes(bytes(broken), name)
        outcome = _outcome(store)
        if isinstance(outcome, str):
            assert name in outcome
            assert "\n" not in outcome
        else:  # bytes that mean nothing, such as padding or the name of the writer
            assert episodes_to_table(outcome)["digest"].to_pylist() == _digests(whole)


def _outcome(store: Store) -> list[Episode] | str:
    try:
        return shards.read_episodes(store)
    except DataError as error:
        return str(error)


def _digests(blob: bytes) -> list[bytes]:
    digests: list[bytes] = pq.read_table(pa.BufferReader(blob))["digest"].to_pylist()
    return digests


def test_files_are_plain_arrow_for_readers_without_ray(tmp_path: Path) -> None:
    shards.write_episodes(Store.at(tmp_path), [make_episode("a", 4), make_episode("b", 2)])
    code = (
        "import sys, pyarrow.parquet as pq; import phaseb.episodes.shards;"
        f"t = pq.read_table({str(tmp_path)!r}); assert 'ray' not in sys.modules;"
        "print(t['state'].chunk(0)[1].values.to_numpy_ndarray().shape, t['actions'].to_pylist()[1][0].__len__())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(3,", "3)", "2"]


def test_episodes_of_cameras_alone_can_be_read_without_their_frames(tmp_path: Path) -> None:
    episodes = [dataclasses.replace(make_episode(f"e{i}", 5, seed=i, state=0), split="train") for i in range(3)]
    shards.write_episodes(Store.at(tmp_path), episodes)
    for before, after in zip(episodes, shards.iter_episodes(Store.at(tmp_path), frames=False), strict=True):
        assert (after.state, after.frames, after.id, after.split) == (None, None, before.id, "train")
        np.testing.assert_array_equal(after.actions, before.actions)
        assert dataclasses.replace(after, split="dev").split == "dev"
    with pytest.raises(DataError, match="has neither state nor frames"):
        dataclasses.replace(episodes[0], frames=None)
