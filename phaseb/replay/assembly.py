"""Batches put together from the parts that the shards gave."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from phaseb.replay.block import Block, Part, as_batches, block_size, open_block
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
    numbered = any(spec.weighting == "priority" for spec in request.specs)
    num = request.num_batches * len(request.specs) * request.shape.share
    single = is_single(windows)
    if single is not None:
        part = parts[single]
        block = open_block(schema, part.flat, num, numbered)
        batch = as_batches(schema, block, synthetic_places(request), request.num_batches, part.frames)
        if numbered:
            batch["shard"] = np.full(batch["number"].shape, single)
        return batch
    numbers, synthetic = places(request)
    block = open_block(schema, pool.take(block_size(schema, num, numbered)), num, numbered)
    shards = np.empty(num, dtype=np.int64)
    frames = np.empty((num, 2, *schema.frame_shape), np.uint8) if schema.frame_shape else None
    for shard, part in parts.items():
        at = np.flatnonzero(owned(numbers, synthetic, windows[shard]).ravel())
        given = open_block(schema, part.flat, len(at), numbered)
        for target, source in zip(_columns(block), _columns(given), strict=True):
            target[at] = source
        if frames is not None and part.frames is not None:
            frames[at] = part.frames
        shards[at] = shard
    batch = as_batches(schema, block, synthetic, request.num_batches, frames)
    if numbered:
        batch["shard"] = shards.reshape(request.num_batches, *synthetic.shape)
    return batch


def _columns(block: Block) -> list[NDArray[np.generic]]:
    names = ("records", "discount", "weight", "age", "numbers")
    return [column for column in (getattr(block, name) for name in names) if column is not None]


