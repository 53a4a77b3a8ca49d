"""Batches put together from the parts that the shards gave."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from phaseb.replay.block import Block, Part, as_batches
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
    layout = request.layout(schema, request.num_batches * len(request.specs) * request.shape.share)
    single = is_single(windows)
    if single is not None:
        part = parts[single]
        block = layout.open(part.flat)
        batch = as_batches(schema, block, synthetic_places(request), request.num_batches, part.frames)
        if layout.numbered:
            batch["shard"] = np.full(batch["number"].shape, single)
        return batch
    numbers, synthetic = places(request)
    block = layout.open(pool.take(layout.size))
    shards = np.empty(layout.num, dtype=np.int64)
    frames = None
    if schema.frame_shape:
        frames = np.empty((layout.num, layout.length + 1, *schema.frame_shape), np.uint8)
    for shard, part in parts.items():
        at = np.flatnonzero(owned(numbers, synthetic, windows[shard]).ravel())
        given = request.layout(schema, len(at)).open(part.flat)
        for target, source in zip(_columns(block), _columns(given), strict=True):
            target[at] = source
        if frames is not None and part.frames is not None:
            frames[at] = part.frames
        shards[at] = shard
    batch = as_batches(schema, block, synthetic, request.num_batches, frames)
    if layout.numbered:
        batch["shard"] = shards.reshape(request.num_batches, *synthetic.shape)
    return batch


def _columns(block: Block) -> list[NDArray[np.generic]]:
    names = ("records", "discount", "weight", "age", "numbers")
    return [column for column in (getattr(block, name) for name in names) if column is not None]


