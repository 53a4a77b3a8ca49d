"""Shards: a folder of Parquet files `part-00002-of-00007.parquet`.

The name says how many there must be, so a folder with one missing is noticed; rows carry digests. A process that reads
a local shard again, as fits and their batches do, does not hash the rows of the very file anew.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from phaseb.episodes.episode import Episode
from phaseb.episodes.parquet_file import naming, read_table, write_table
from phaseb.episodes.schema import (
    EPISODES,
    KIND,
    TRAJECTORIES,
    check_kind,
    episodes_to_table,
    stamp_kind,
    table_to_episodes,
)
from phaseb.episodes.trajectories import Trajectories
from phaseb.episodes.trajectory_schema import check_rows, table_to_trajectories, trajectories_to_table
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

_checked: set[tuple[int, ...]] = set()
"""Files all rows of which this process found to be as they were written."""
_NAME = re.compile(r"part-(\d{5,})-of-(\d{5,})\.parquet")


def shard_name(index: int, total: int) -> str:
    """The file name of shard `index` (from 0) of `total`."""
    return f"part-{index:05d}-of-{total:05d}.parquet"


def shard_names(store: Store) -> list[str]:
    """The shards of a folder, in order.

    Raises:
        DataError: where there are none, or not all that there must be.
    """
    found = _shard_files(store)
    if not found:
        raise DataError(f"no shards in {store.root}; run the stage that writes them")
    totals = {int(name.rpartition("-")[2].removesuffix(".parquet")) for name in found}
    names = [shard_name(i, max(totals)) for i in range(max(totals))]
    missing = [name for name in names if name not in found]
    if missing or len(totals) > 1:
        what = f"{missing[0]} is missing" if missing else "shards of two writes are mixed"
        raise DataError(f"{store.root} is not whole: {what}; run the stage that writes it again")
    return names


def write_episodes(store: Store, episodes: Iterable[Episode], rows_per_shard: int = 64) -> list[str]:
    """Write episodes as the only shards of a folder and return their names; the same episodes give the same bytes."""
    rows = list(episodes)
    return _write_all(store, [rows[i : i + rows_per_shard] for i in range(0, len(rows), rows_per_shard)])


def write_trajectories(store: Store, trajectories: Trajectories, rows_per_shard: int = 256) -> list[str]:
    """Write trajectories as the only shards of a folder and return their names."""
    total = len(trajectories)
    starts = range(0, total, rows_per_shard)
    return _write_all(store, [trajectories.select(range(i, min(i + rows_per_shard, total))) for i in starts])


def read_episodes(store: Store, splits: Sequence[str] = (), frames: bool = True) -> list[Episode]:
    """The episodes of a folder, all or of some splits only (the rest is not even decoded)."""
    return list(iter_episodes(store, splits, frames))


def iter_episodes(store: Store, splits: Sequence[str] = (), frames: bool = True) -> Iterator[Episode]:
    """The same, one shard in memory at a time."""
    for name in shard_names(store):
        table = choose_rows(store, name, EPISODES, lambda table: in_splits(table, splits), frames)
        with naming(store, name):
            found = table_to_episodes(table)
        yield from found


def read_trajectories(store: Store, splits: Sequence[str] = ()) -> Trajectories:
    """The trajectories of a folder as one padded set, all or of some splits only. Larger folders: see `streaming`."""
    chosen = [
        choose_rows(store, name, TRAJECTORIES, lambda table: in_splits(table, splits)) for name in shard_names(store)
    ]
    with naming(store, "part-*.parquet"):
        return table_to_trajectories(pa.concat_tables(chosen))


def in_splits(table: pa.Table, splits: Sequence[str]) -> NDArray[np.int64]:
    """The rows of a table that are of some splits; all of them where none is named."""
    if not splits:
        return np.arange(table.num_rows)
    chosen = pc.is_in(table["split"], pa.array(list(splits), pa.string()))
    return np.flatnonzero(chosen.to_numpy())


def choose_rows(
    store: Store, name: str, kind: bytes, rows_of: Callable[[pa.Table], NDArray[np.int64]], frames: bool = True
) -> pa.Table:
    """Those rows of a shard of a kind that `rows_of` names, not decoded yet; with `frames` false, without them.

    Trajectories are checked here, episodes where they are decoded.
    """
    with naming(store, name):
        file = _identity(store, name)
        table = read_table(store, name, lambda column: frames or column != "frames")
        check_kind(table.schema, kind)
        rows = rows_of(table)
        chosen = stamp_kind(table if len(rows) == table.num_rows else table.take(rows), kind)
        if kind == TRAJECTORIES:
            _check_once(chosen, file, len(rows) == table.num_rows)
        return chosen


def _check_once(table: pa.Table, file: tuple[int, ...], whole: bool) -> None:
    """See that the rows read of a file, all of them where `whole`, are as they were written, unless that is known."""
    if file and file in _checked:
        return
    check_rows(table)
    if file and whole:
        _checked.add(file)


def _identity(store: Store, name: str) -> tuple[int, ...]:
    """What another file, or the same one written again, would not share; nothing for files of other machines."""
    if not store.is_local:
        return ()
    try:
        found = os.stat(store.path(name))
    except FileNotFoundError:
        return ()  # whoever reads it tells
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_shard(store: Store, name: str) -> list[Episode] | Trajectories:
    """One shard of either kind."""
    with naming(store, name):
        file, table = _identity(store, name), read_table(store, name)
        if (table.schema.metadata or {}).get(KIND) == TRAJECTORIES:
            _check_once(table, file, whole=True)
            return table_to_trajectories(table)
        return table_to_episodes(table)


def write_shard(store: Store, name: str, content: Sequence[Episode] | Trajectories, stamp: str = "") -> None:
    """Write one shard of either kind, atomically, under a name that `shard_name` gave."""
    if isinstance(content, Trajectories):
        table = trajectories_to_table(content)
    else:
        table = episodes_to_table(content)
    write_table(store, name, table, stamp)


def clear_shards(store: Store, keep: Iterable[str] = ()) -> None:
    """Delete the shards of a folder but those to keep."""
    for stale in _shard_files(store) - set(keep):
        store.delete(stale)


def digest(store: Store) -> str:
    """A digest (hex) of what a folder of shards holds, whatever its sharding, its order and when it was written."""
    rows: list[bytes] = []
    for name in shard_names(store):
        rows += row_digests(store, name)
    return hashlib.blake2b(b"".join(sorted(rows)), digest_size=16).hexdigest()


def row_digests(store: Store, name: str) -> list[bytes]:
    """The digests of the rows of one shard, in order."""
    with naming(store, name):
        found: list[bytes] = read_table(store, name, lambda column: column == "digest")["digest"].to_pylist()
        return found


def _shard_files(store: Store) -> set[str]:
    return {name for name in store.names(suffix=".parquet") if _NAME.fullmatch(name)}


def _write_all(store: Store, parts: Sequence[Sequence[Episode] | Trajectories]) -> list[str]:
    if not parts:
        raise DataError(f"nothing to write to {store.root}")
    names = [shard_name(i, len(parts)) for i in range(len(parts))]
    clear_shards(store, keep=names)
    for name, part in zip(names, parts, strict=True):
        write_shard(store, name, part)
    return names
