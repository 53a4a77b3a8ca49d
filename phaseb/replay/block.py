"""Batches as they travel: one flat float32 array, of which a learner's arrays are views.

For n transitions: n pairs of records (a row and the one behind it), then n discounts, n weights, n ages and,
where priorities are wanted, n row numbers (int64, as pairs of float32 bit patterns).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.replay.schema import TransitionSchema

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """What a shard gives: n transitions in one flat array, their books, and (n, 2, H, W, C) frames or None."""

    num_transitions: int
    flat: Floats
    books: NDArray[np.float64]
    frames: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Block:
    """n transitions in one flat array; every attribute is a view of it."""

    flat: Floats
    records: Floats
    discount: Floats
    weight: Floats
    age: Floats
    numbers: NDArray[np.int64] | None


def block_size(schema: TransitionSchema, num: int, numbered: bool) -> int:
    """Numbers in the flat array of `num` transitions."""
    return num * (2 * schema.width + 3) + (2 * num + 1 if numbered else 0)


def open_block(schema: TransitionSchema, flat: Floats, num: int, numbered: bool) -> Block:
    """The views of a flat array of `num` transitions."""
    width = 2 * schema.width
    at = num * width
    numbers = None
    if numbered:
        begin = at + 3 * num
        begin += begin % 2  # int64 wants an even place
        numbers = flat[begin : begin + 2 * num].view(np.int64)
    return Block(
        flat, flat[:at].reshape(num, width), flat[at : at + num], flat[at + num : at + 2 * num],
        flat[at + 2 * num : at + 3 * num], numbers,
    )  # fmt: skip


def as_batches(
    schema: TransitionSchema,
    block: Block,
    synthetic: NDArray[np.bool_],
    num_batches: int,
    frames: NDArray[np.uint8] | None,
) -> dict[str, NDArray[np.generic]]:
    """The learner's arrays, (num_batches, R, B, …), without a copy.

    Args:
        synthetic: (R, B) which places of a batch are synthetic.
        frames: (n, 2, H, W, C), or None.
    """
    shape = (num_batches, *synthetic.shape)
    records = block.records.reshape(*shape, -1)
    batch: dict[str, NDArray[np.generic]] = {
        "z": records[..., : schema.latent_size],
        "action": records[..., schema.action],
        "reward": records[..., schema.reward],
        "next_z": records[..., schema.width : schema.width + schema.latent_size],
        "discount": block.discount.reshape(shape),
        "is_synthetic": np.broadcast_to(synthetic, shape),
        "weight": block.weight.reshape(shape),
        "trust": records[..., schema.trust],
        "age": block.age.reshape(shape),
        "cut": records[..., schema.cut],
    }
    if block.numbers is not None:
        batch["number"] = block.numbers.reshape(shape)
    if frames is not None:
        pairs = frames.reshape(*shape, *frames.shape[1:])
        batch["frame"], batch["next_frame"] = pairs[:, :, :, 0], pairs[:, :, :, 1]
    return batch
