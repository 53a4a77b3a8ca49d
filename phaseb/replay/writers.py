"""Writers beside `insert`: folders of shards, and the batches of any Ray Data pipeline. None needs Ray to be imported.

All are at-least-once: what is inserted again, because a task was tried again or a file is read twice, is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.shards import read_shard, shard_names
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.replay.ring import Inserted
from phaseb.replay.segments import Source
from phaseb.runtime.storage import Store

Array = NDArray[Any]
REQUIRED = ("id", "z", "actions", "rewards")
OPTIONAL = ("uncertainty", "trust", "weights")


class Writable(Protocol):
    """A `LocalReplay` or a `ReplayClient`."""

    def insert(
        self, trajectories: Trajectories, source: Source, columns: Mapping[str, Array] | None = None
    ) -> Inserted: ...


def insert_shards(replay: Writable, store: Store, source: Source, splits: Sequence[str] = ()) -> Inserted:
    """Insert a folder of trajectories, all or of some splits only, one shard in memory at a time.

    Raises:
        DataError: shards that are missing, altered, or hold something else.
    """
    done = Inserted(0, 0, 0)
    for name in shard_names(store):
        found = read_shard(store, name)
        if not isinstance(found, Trajectories):
            raise DataError(f"{store.path(name)} holds episodes, not trajectories; encode them first")
        chosen = [i for i, split in enumerate(found.splits) if not splits or split in splits]
        if chosen:
            done += replay.insert(found.select(chosen), source)
    return done


class Inserter:
    """The function of `Dataset.map_batches(…, batch_format="numpy")`: inserts each batch, hands on what was done.

    A row is an episode of T steps: `id`, `z` (T + 1, D), `actions` (T, A), `rewards` (T,); where there are such,
    `terminals`, `uncertainty`, `trust`, `weights` (T,), and `lineage`, a map whose `model` is the world model's digest.

    Args:
        replay: where to; it travels to the tasks.
        source: of all rows.
        columns: further columns of the rows, a number or (T,) each, that are weight columns of the buffer.

    Examples:
        `counts = dataset.map_batches(Inserter(replay, "synthetic"), batch_size=256, batch_format="numpy")`, and
        `counts.sum("inserted")` runs it.
    """

    def __init__(self, replay: Writable, source: Source, columns: Sequence[str] = ()) -> None:
        self._replay, self._source, self._columns = replay, source, tuple(columns)

    def __call__(self, batch: dict[str, Array]) -> dict[str, Array]:
        trajectories = to_trajectories(batch)
        steps = trajectories.rewards.shape[1]
        given = {name: _column(batch, name, trajectories.lengths, steps) for name in self._columns}
        done = self._replay.insert(trajectories, self._source, given)
        counts = {"inserted": done.inserted, "duplicates": done.duplicates, "evicted": done.evicted}
        return {name: np.array([count]) for name, count in counts.items()}


def to_trajectories(batch: Mapping[str, Array]) -> Trajectories:
    """Rows of a Ray Data batch, of any lengths, as padded trajectories.

    Raises:
        DataError: a column is missing, or the columns of a row differ in length.
    """
    missing = [name for name in REQUIRED if name not in batch]
    if missing:
        raise DataError(f"a batch has no column {missing[0]!r}; it has {', '.join(sorted(batch))}")
    lengths = np.array([len(row) for row in batch["rewards"]], dtype=np.int64)
    steps = int(lengths.max(initial=0))
    uncertainty, trust, weights = (
        _pad(batch, name, lengths, steps) if _is_there(batch, name) else None for name in OPTIONAL
    )
    rewards = _pad(batch, "rewards", lengths, steps)
    terminals = _pad(batch, "terminals", lengths, steps) if _is_there(batch, "terminals") else np.zeros_like(rewards)
    models = [dict(row).get("model", "") for row in batch["lineage"]] if _is_there(batch, "lineage") else []
    ids = tuple(str(name) for name in batch["id"])
    return Trajectories(
        z=_pad(batch, "z", lengths + 1, steps + 1), actions=_pad(batch, "actions", lengths, steps), rewards=rewards,
        terminals=terminals, lengths=lengths, ids=ids, splits=("",) * len(ids),
        lineage={"model": tuple(str(m) for m in models)} if models else {},
        uncertainty=uncertainty, trust=trust, weights=weights,
    )  # fmt: skip


def _is_there(batch: Mapping[str, Array], name: str) -> bool:
    return name in batch and all(row is not None for row in batch[name])


def _column(batch: Mapping[str, Array], name: str, lengths: NDArray[np.int64], steps: int) -> NDArray[np.float32]:
    if name not in batch:
        raise DataError(f"a batch has no column {name!r}; it has {', '.join(sorted(batch))}")
    single = np.ndim(batch[name][0]) == 0
    return batch[name].astype(np.float32) if single else _pad(batch, name, lengths, steps)


def _pad(batch: Mapping[str, Array], name: str, lengths: NDArray[np.int64], steps: int) -> NDArray[np.float32]:
    """(N, steps, …): rows of `lengths`, behind them zeros."""
    rows = [_numbers(row) for row in batch[name]]
    wrong = [i for i, (row, length) in enumerate(zip(rows, lengths, strict=True)) if len(row) != length]
    if wrong:
        raise DataError(f"episode {batch['id'][wrong[0]]}: {name!r} has {len(rows[wrong[0]])} steps, "
                        f"wanted {lengths[wrong[0]]}")  # fmt: skip
    padded = np.zeros((len(rows), steps, *rows[0].shape[1:]), dtype=np.float32)
    for row, place in zip(rows, padded, strict=True):
        place[: len(row)] = row
    return padded


def _numbers(row: Any) -> NDArray[np.float32]:
    """A row's numbers; lists of tensors come as arrays of arrays."""
    array = np.asarray(row)
    if array.dtype == object:
        array = np.stack([np.asarray(step, dtype=np.float32) for step in array])
    return array.astype(np.float32)
