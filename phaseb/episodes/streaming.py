"""Folders of shards that do not fit into memory: all of them batch by batch, or a bounded sample of them.

Whatever goes through every episode takes `batches`; whatever is fitted to episodes takes a sample. A set that is no
larger than the bound is one batch, and its sample is the set itself, in its order: small data see no difference.

The sample is of the rows with the smallest hashes of (seed, id). So it is uniform, the same however the rows are
sharded or ordered, and a smaller sample is a part of a larger one.
"""

import heapq
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phaseb.episodes.episode import Episode
from phaseb.episodes.parquet_file import naming, read_table
from phaseb.episodes.schema import EPISODES, TRAJECTORIES, table_to_episodes
from phaseb.episodes.shards import choose_rows, in_splits, shard_names
from phaseb.episodes.trajectories import Trajectories
from phaseb.episodes.trajectory_schema import table_to_trajectories
from phaseb.runtime.seeding import derive_seed
from phaseb.runtime.storage import Store

STEPS_AT_ONCE = 2**18
"""Steps, padding included, that a batch of several shards holds: some tens of MB of latents."""

_Rows = dict[str, NDArray[np.int64]]


def lengths_of(store: Store, splits: Sequence[str] = ()) -> NDArray[np.int32]:
    """(N,) the numbers of steps of a folder's episodes or trajectories, all or of some splits; nothing else is read."""
    found = []
    for name in shard_names(store):
        with naming(store, name):
            table = read_table(store, name, lambda column: column in ("split", "num_steps"))
            found.append(table.take(in_splits(table, splits))["num_steps"].to_numpy().astype(np.int32))
    return np.concatenate(found)


def batches(
    store: Store, splits: Sequence[str] = (), at_once: int = STEPS_AT_ONCE, share: float = 1.0, seed: int = 0
) -> Iterator[Trajectories]:
    """Every trajectory of a folder once, in order: neighbouring shards together while they are `at_once` steps at most.

    A shard is never cut. Where there is no trajectory there is no batch.

    Args:
        splits: of these splits only.
        at_once: steps, padding included.
        share: below 1, about that share of the trajectories, drawn evenly by `seed` whatever the sharding.
        seed: of the draw.
    """
    held: list[pa.Table] = []
    rows = longest = 0
    for name in shard_names(store):
        table = choose_rows(
            store, name, TRAJECTORIES, lambda found: _share(found, in_splits(found, splits), share, seed)
        )
        if table.num_rows == 0:
            continue
        wider = max(longest, int(np.max(table["num_steps"].to_numpy())))
        if held and (rows + table.num_rows) * wider > at_once:
            yield _trajectories(store, held)
            held, rows, wider = [], 0, int(np.max(table["num_steps"].to_numpy()))
        held.append(table)
        rows, longest = rows + table.num_rows, wider
    if held:
        yield _trajectories(store, held)


def sample_trajectories(store: Store, splits: Sequence[str], most: int, seed: int, min_steps: int = 0) -> Trajectories:
    """At most `most` trajectories of each split, drawn evenly by `seed`, in the order of the folder.

    Args:
        splits: none of them: all rows count as one split.
        min_steps: shorter ones are not drawn.
    """
    drawn = _draw(store, splits, most, seed, min_steps)
    tables = [choose_rows(store, name, TRAJECTORIES, lambda _, rows=rows: rows) for name, rows in drawn.items()]  # type: ignore[misc]
    return _trajectories(store, tables)


def sample_episodes(store: Store, splits: Sequence[str], most: int, seed: int, frames: bool = True) -> list[Episode]:
    """At most `most` episodes of each split, likewise; what is not drawn is not decoded."""
    found: list[Episode] = []
    for name, rows in _draw(store, splits, most, seed).items():
        if len(rows):
            table = choose_rows(store, name, EPISODES, lambda _, rows=rows: rows, frames)  # type: ignore[misc]
            with naming(store, name):
                found += table_to_episodes(table)
    return found


def subsample(trajectories: Trajectories, most: int, seed: int) -> Trajectories:
    """At most `most` of these, by the same draw."""
    if len(trajectories) <= most:
        return trajectories
    keys = [(derive_seed(seed, "sample", name), i) for i, name in enumerate(trajectories.ids)]
    return trajectories.select(sorted(i for _, i in heapq.nsmallest(most, keys)))


def _draw(store: Store, splits: Sequence[str], most: int, seed: int, min_steps: int = 0) -> _Rows:
    """The rows drawn of every shard, in order. One pass over ids alone; `most` of them are held."""
    held: dict[str, list[tuple[int, int, int]]] = {split: [] for split in splits or ("",)}
    names = shard_names(store)
    for shard, name in enumerate(names):
        with naming(store, name):
            table = read_table(store, name, lambda column: column in ("id", "split", "num_steps"))
            rows = in_splits(table, splits)
            rows = rows[table["num_steps"].to_numpy()[rows] >= min_steps]
            ids, roles = table["id"].to_pylist(), table["split"].to_pylist()
        for row in rows.tolist():
            heap = held[roles[row] if splits else ""]
            entry = (-derive_seed(seed, "sample", ids[row]), shard, row)  # the largest hash lies on top
            if len(heap) < most:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
    drawn: dict[int, list[int]] = {shard: [] for shard in range(len(names))}
    for heap in held.values():
        for _, shard, row in heap:
            drawn[shard].append(row)
    return {name: np.sort(np.array(drawn[shard], dtype=np.int64)) for shard, name in enumerate(names)}


def _share(table: pa.Table, rows: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """About that share of some rows of a table."""
    if share >= 1:
        return rows
    ids, limit = table["id"].to_pylist(), share * 2**63
    return rows[[derive_seed(seed, "share", ids[row]) < limit for row in rows.tolist()]]


def _trajectories(store: Store, tables: Sequence[pa.Table]) -> Trajectories:
    with naming(store, "part-*.parquet"):
        return table_to_trajectories(pa.concat_tables(tables))
