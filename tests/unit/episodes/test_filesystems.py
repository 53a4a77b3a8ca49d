"""Shards on a filesystem that is not the local one, and what happens when a write fails half-way."""

from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from episode_strategies import make_episode, make_trajectories

from phaseb.episodes.pipeline import map_shards
from phaseb.episodes.shards import digest, read_episodes, read_trajectories, write_episodes, write_trajectories
from phaseb.errors import PhasebError
from phaseb.runtime.storage import Store


def remote(root: str = "bucket/run") -> Store:
    return Store(pafs._MockFileSystem(), root)


class Keep:
    def __call__(self, shard: Any) -> Any:
        return shard


def test_shards_live_on_any_filesystem() -> None:
    store = remote()
    episodes = [make_episode(f"e{i}", 4, frames=True) for i in range(5)]
    write_episodes(store.folder("episodes"), episodes, 2)
    assert [e.id for e in read_episodes(store.folder("episodes"))] == [e.id for e in episodes]
    map_shards(store.folder("episodes"), store.folder("copy"), Keep)
    assert digest(store.folder("copy")) == digest(store.folder("episodes"))
    write_trajectories(store.folder("latents"), make_trajectories([3, 5, 2]), 2)
    assert read_trajectories(store.folder("latents")).ids == ("t0", "t1", "t2")


def test_a_folder_that_cannot_be_written_is_said_and_stays_as_it_was(tmp_path: Path) -> None:
    store = Store.at(tmp_path / "file" / "episodes")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PhasebError, match="cannot write"):
        write_episodes(store, [make_episode("a", 3)])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_no_shard_that_could_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, move = Store.at(tmp_path), pafs.LocalFileSystem.move
    calls: list[str] = []

    def full(self: pafs.LocalFileSystem, source: str, target: str) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        move(self, source, target)

    monkeypatch.setattr(Store, "filesystem", property(lambda self: Full(full)), raising=False)
    episodes = [make_episode(f"e{i}", 3) for i in range(3)]
    with pytest.raises(PhasebError, match="the disk is full"):
        write_episodes(store, episodes, 1)
    monkeypatch.undo()
    assert store.names() == ["part-00000-of-00003.parquet"]
    with pytest.raises(PhasebError, match=r"part-00001-of-00003\.parquet is missing"):
        read_episodes(store)


class Full:
    """A local filesystem whose renames are counted and fail by order."""

    def __init__(self, move: Any) -> None:
        self._inner, self._move = pafs.LocalFileSystem(), move

    def move(self, source: str, target: str) -> None:
        self._move(self._inner, source, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
