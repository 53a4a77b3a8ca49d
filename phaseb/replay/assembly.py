"""Batches put together from the parts that the shards gave."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from phaseb.replay.block import NUM_COLUMNS, Part, as_batches, as_items
from phaseb.replay.buffer_pool import BufferPool
from phaseb.replay.plan import Request, owned, places
from phaseb.replay.schema import TransitionSchema


def is_single(windows: NDArray[np.float64]) -> int | None:
    """The shard that owns every window (S, R, 2, 2) whole, if there is one."""
    whole = (windows[..., 0] == 0).all((1, 2)) & (windows[..., 1] == 1).all((1, 2))
    return int(np.flatnonzero(whole)[0]) if whole.any() else None


def synthetic_places(request: Request) -> NDArray[np.bool_]:
    """(R, share): which places of a batch are synthetic."""
    column = request.shape.begin + np.arange(request.shape.share)
    return column[None] >= request.shape.batch_size - np.array(request.num_synthetic)[:, None]


def assemble(
    schema: TransitionSchema,
    request: Request,
    parts: Mapping[int, Part],
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
    if single is not None:
        whole, shards = parts[single], None
        shape = (request.num_batches, len(request.specs), request.shape.share)
        if request.numbered:
            shards = np.broadcast_to(np.int64(single), shape)
    else:
        whole, shards = _put_together(schema, request, parts, windows, pool)
    batch = as_batches(schema, whole, request.length, synthetic_places(request), request.num_batches)
    if request.numbered and shards is not None:
        batch["shard"] = shards.reshape(batch["number"].shape)
    return batch


def _put_together(
    schema: TransitionSchema,
    request: Request,
    parts: Mapping[int, Part],
    windows: NDArray[np.float64],
    pool: BufferPool,
) -> tuple[Part, NDArray[np.int64]]:
    """Copy what several shards gave to its places; beside it the shard of each draw."""
    numbers, synthetic = places(request)
    num, run = request.num_draws, schema.run(request.length)
    frames = None
    if schema.frame_shape:
        frames = np.empty((num, request.length + 1, *schema.frame_shape), np.uint8)
    books = np.zeros_like(next(iter(parts.values())).books)
    whole = Part(
        pool.take(num * run).reshape(num, run), np.empty((NUM_COLUMNS, num), np.float32),
        np.empty(num, np.int64) if request.numbered else None, books, frames,
    )  # fmt: skip
    shards = np.empty(num, dtype=np.int64)
    for shard, part in parts.items():
        at = np.flatnonzero(owned(numbers, synthetic, windows[shard]).ravel())
        as_items(whole.records)[at] = as_items(part.records)
        whole.columns[:, at] = part.columns
        if whole.numbers is not None and part.numbers is not None:
            whole.numbers[at] = part.numbers
        if whole.frames is not None and part.frames is not None:
            whole.frames[at] = part.frames
        shards[at] = shard
    return whole, shards
