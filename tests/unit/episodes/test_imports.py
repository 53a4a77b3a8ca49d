import sys
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episode_strategies import make_episode

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.npz import write_npz
from phaseb.episodes.importer import import_episodes
from phaseb.episodes.shards import digest, read_episodes, shard_names, write_episodes
from phaseb.episodes.sources import Entry, fingerprint, open_source
from phaseb.episodes.splits import choose_splits
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.storage import Store

FIXTURES = Path(__file__).parents[2] / "fixtures"


def npz(path: Path, number: int = 10, **fields: Any) -> EpisodesConfig:
    write_npz(Store.at(path), "x.npz", [make_episode(f"e{i}", 4, seed=i) for i in range(number)])
    return EpisodesConfig(source="npz", path=str(path / "x.npz"), rows_per_shard=3, **fields)


def test_everything_is_read_split_and_sharded(tmp_path: Path) -> None:
    config, target = npz(tmp_path), Store.at(tmp_path / "episodes")
    seen: list[tuple[int, int]] = []
    names = import_episodes(config, target, seed=5, progress=lambda *done: seen.append(done))
    assert names == shard_names(target)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    episodes = read_episodes(target)
    assert [e.id for e in episodes] == [f"e{i}" for i in range(10)]
    assert Counter(e.split for e in episodes) == {"train": 6, "dev": 2, "test": 2}
    listed = list(open_source(config).read(range(10)))
    assert [e.split for e in episodes] == choose_splits([(e.id, e.split) for e in listed], config, 5)


@pytest.mark.parametrize("source", ["minari-hdf5", "minari-arrow", "lerobot-v3", "lerobot-v21"])
def test_every_format_becomes_shards(tmp_path: Path, source: str) -> None:
    config = EpisodesConfig(source=source.split("-")[0], path=str(FIXTURES / source), rows_per_shard=2)
    import_episodes(config, Store.at(tmp_path), seed=0)
    assert Counter(e.split for e in read_episodes(Store.at(tmp_path))) == {"train": 3, "dev": 1, "test": 1}


def test_a_killed_import_goes_on_where_it_stopped(tmp_path: Path) -> None:
    config, target = npz(tmp_path), Store.at(tmp_path / "episodes")
    names = import_episodes(config, target, seed=5)
    before = {name: (Path(target.path(name)).stat().st_mtime_ns, target.read_bytes(name)) for name in names}
    target.delete(names[2])
    import_episodes(config, target, seed=5)
    after = {name: (Path(target.path(name)).stat().st_mtime_ns, target.read_bytes(name)) for name in names}
    assert {n for n in names if after[n][0] != before[n][0]} == {names[2]}
    assert [blob for _, blob in after.values()] == [blob for _, blob in before.values()]


def test_other_data_settings_or_seeds_are_imported_anew(tmp_path: Path) -> None:
    target, digests = Store.at(tmp_path / "episodes"), []
    changes: list[dict[str, Any]] = [{}, {}, {"dev_fraction": 0.3}, {"number": 7}]
    for change, seed in zip(changes, (5, 6, 6, 6), strict=True):
        import_episodes(npz(tmp_path, **change), target, seed)
        digests.append(digest(target))
    assert len(set(digests)) == 4
    assert len(read_episodes(target)) == 7


def test_bad_data_leave_nothing_behind(tmp_path: Path) -> None:
    rows = np.ones((9, 4))
    content = {"observations": np.ones((9, 5, 2)), "actions": np.ones((9, 4, 1)), "rewards": rows}
    path = tmp_path / "x.npz"
    np.savez(path, **content)
    config = EpisodesConfig(source=f"{__name__}:Late", path=str(path), rows_per_shard=2)
    target = Store.at(tmp_path / "episodes")
    sys.modules[__name__] = types.ModuleType(__name__)
    vars(sys.modules[__name__])["Late"] = Late
    with pytest.raises(DataError, match="the fourth is bad"):
        import_episodes(config, target, 0)
    assert target.names() == []


class Late:
    """A source of one's own that fails in the middle, and is asked for one shard at a time."""

    def __init__(self, config: EpisodesConfig) -> None:
        self.config = config

    def entries(self) -> Sequence[Entry]:
        return [(str(i), "") for i in range(9)]

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        assert len(indices) <= self.config.rows_per_shard
        for i in indices:
            if i == 4:
                raise DataError("the fourth is bad")
            yield make_episode(str(i), 3)


def test_a_class_that_just_yields_episodes_is_a_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = types.ModuleType("mine")
    module.Own = lambda config: (make_episode(str(i), 3) for i in range(4))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)
    config = EpisodesConfig(source="mine:Own", dev_fraction=0.25)
    import_episodes(config, Store.at(tmp_path), 0)
    assert len(read_episodes(Store.at(tmp_path))) == 4
    with pytest.raises(ConfigError, match="module mine has no Other"):
        open_source(EpisodesConfig(source="mine:Other"))
    with pytest.raises(ConfigError, match="there is no module absent_module; put it into the current folder"):
        open_source(EpisodesConfig(source="absent_module:Other"))


def test_own_shards_keep_their_splits(tmp_path: Path) -> None:
    roles = ["test", "train", "dev", "train", "train"]
    written = [make_episode(f"e{i}", 3, frames=True, split=role) for i, role in enumerate(roles)]
    write_episodes(Store.at(tmp_path / "old"), written, 2)
    for path in ("old", "old/part-00000-of-00003.parquet"):
        config = EpisodesConfig(source="parquet", path=str(tmp_path / path))
        if path == "old":
            import_episodes(config, Store.at(tmp_path / "new"), 9)
            assert digest(Store.at(tmp_path / "new")) == digest(Store.at(tmp_path / "old"))
        else:
            assert open_source(config).entries() == [("e0", "test"), ("e1", "train")]


def test_a_fingerprint_sees_names_sizes_and_times(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = fingerprint(str(tmp_path))
    assert first == fingerprint(str(tmp_path))
    (tmp_path / "a" / "y").touch()
    assert fingerprint(str(tmp_path)) != first
    with pytest.raises(DataError, match="no such file or folder"):
        fingerprint(str(tmp_path / "none"))
