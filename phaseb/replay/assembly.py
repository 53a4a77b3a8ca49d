"""Batches put together from the parts that the shards gave."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.replay.plan import SampleRequest, owned, places
from phaseb.replay.schema import TransitionSchema

Floats = NDArray[np.float32]
DISCOUNT, WEIGHT, AGE = 0, 1, 2
NUM_COLUMNS = 3


@dataclass(frozen=True)
class ShardBatch:
    """n draws that a shard gives, or that were put together from several shards'.

    Attributes:
        records: (n, run) with run = W + D, see `TransitionSchema.run`.
        columns: (3, n) discount, weight for the loss, age.
        books: of what was drawn.
        chunks: (n, K, A + 1) actions from the row on and their shares of its weight; None where K is 1.
    """

    records: Floats
    columns: Floats
    stats: NDArray[np.float64]
    chunks: Floats | None = None

    @property
    def num_draws(self) -> int:
        return len(self.records)


def as_batches(
    schema: TransitionSchema, part: ShardBatch, synthetic: NDArray[np.bool_], num_batches: int
) -> dict[str, NDArray[np.generic]]:
    """The learner's arrays, (num_batches, R, B, …), without a copy.

    Args:
        synthetic: (R, B) which places of a batch are synthetic.
    """
    shape = (num_batches, *synthetic.shape)
    records = part.records.reshape(*shape, part.records.shape[1])
    chunks = None if part.chunks is None else part.chunks.reshape(*shape, *part.chunks.shape[1:])
    more = {} if chunks is None else {"chunk": chunks[..., :-1], "chunk_share": chunks[..., -1]}
    return {
        "z": records[..., : schema.latent_size],
        "next_z": records[..., schema.width :],
        "action": records[..., schema.action],
        "reward": records[..., schema.reward],
        "discount": part.columns[DISCOUNT].reshape(shape),
        "is_synthetic": np.broadcast_to(synthetic, shape),
        "weight": part.columns[WEIGHT].reshape(shape),
        "trust": records[..., schema.trust],
        "cut": records[..., schema.cut],
        "age": part.columns[AGE].reshape(shape),
        **more,
    }


def as_items(runs: Floats) -> NDArray[np.void]:
    """(n,): each run (n, run) as one opaque item, so that NumPy moves it in one piece."""
    return runs.view(np.dtype((np.void, runs.shape[1] * runs.itemsize)))[:, 0]


_OURS = 3  # references to a free buffer while `take` looks at it: the list's, the loop's and getrefcount's own
MAX_BUFFERS = 8


class BufferPool:
    """Flat float32 arrays. One is free when no array, view or tensor refers to it any more."""

    def __init__(self) -> None:
        self._buffers: list[NDArray[np.float32]] = []

    def take(self, size: int) -> NDArray[np.float32]:
        """An array of `size` numbers, of any content; it is yours until you let go of it and of all its views."""
        for buffer in self._buffers:
            if buffer.size == size and sys.getrefcount(buffer) == _OURS:
                return buffer[:]
        buffer = np.empty(size, dtype=np.float32)
        self._buffers = [*self._buffers[-(MAX_BUFFERS - 1) :], buffer]
        return buffer[:]


def is_single(windows: NDArray[np.float64]) -> int | None:
    """The shard that owns every window (S, R, 2, 2) whole, if there is one."""
    whole = (windows[..., 0] == 0).all((1, 2)) & (windows[..., 1] == 1).all((1, 2))
    return int(np.flatnonzero(whole)[0]) if whole.any() else None


def synthetic_places(request: SampleRequest) -> NDArray[np.bool_]:
    """(R, share): which places of a batch are synthetic."""
    column = request.shape.begin + np.arange(request.shape.share)
    return column[None] >= request.shape.batch_size - np.array(request.num_synthetic)[:, None]


def assemble(
    schema: TransitionSchema,
    request: SampleRequest,
    parts: Mapping[int, ShardBatch],
    windows: NDArray[np.float64],
    pool: BufferPool,
) -> dict[str, NDArray[np.generic]]:
    """The learner's arrays from the flat parts by shard: views where one shard gave all, else one copy.

    Args:
        request: what was asked (its `window` is not read).
        parts: by shard number.
        windows: (S, R, 2, 2).
        pool: where memory comes from.
    """
    single = is_single(windows)
    whole = parts[single] if single is not None else _put_together(schema, request, parts, windows, pool)
    return as_batches(schema, whole, synthetic_places(request), request.num_batches)


def _put_together(
    schema: TransitionSchema,
    request: SampleRequest,
    parts: Mapping[int, ShardBatch],
    windows: NDArray[np.float64],
    pool: BufferPool,
) -> ShardBatch:
    """Copy what several shards gave to its places."""
    numbers, synthetic = places(request)
    num = request.num_draws
    stats = np.zeros_like(next(iter(parts.values())).stats)
    records = pool.take(num * schema.run).reshape(num, schema.run)
    steps = request.shape.chunk_steps
    chunks = np.empty((num, steps, schema.action_size + 1), np.float32) if steps > 1 else None
    whole = ShardBatch(records, np.empty((NUM_COLUMNS, num), np.float32), stats, chunks)
    for shard, part in parts.items():
        at = np.flatnonzero(owned(numbers, synthetic, windows[shard]).ravel())
        as_items(whole.records)[at] = as_items(part.records)
        whole.columns[:, at] = part.columns
        if chunks is not None:
            chunks[at] = part.chunks
    return whole
