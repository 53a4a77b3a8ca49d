"""Batches as they travel: one flat float32 array, of which a learner's arrays are views.

For n draws of L transitions in a row: n runs of L + 1 records, then n discounts, n weights, n ages and, where
priorities are wanted, n row numbers (int64, as pairs of float32 bit patterns). L = 1: a transition and its successor.
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
class Layout:
    """How n draws lie in a flat array.

    Attributes:
        schema: of the records.
        num: n.
        length: L.
        numbered: whether row numbers are told.
    """

    schema: TransitionSchema
    num: int
    length: int = 1
    numbered: bool = False

    @property
    def size(self) -> int:
        """Numbers in the flat array."""
        return self.num * ((self.length + 1) * self.schema.width + 3) + (2 * self.num + 1 if self.numbered else 0)

    def open(self, flat: Floats) -> "Block":
        """The views of a flat array."""
        num, width = self.num, (self.length + 1) * self.schema.width
        at = num * width
        numbers = None
        if self.numbered:
            begin = at + 3 * num
            begin += begin % 2  # int64 wants an even place
            numbers = flat[begin : begin + 2 * num].view(np.int64)
        return Block(
            flat, flat[:at].reshape(num, self.length + 1, self.schema.width), flat[at : at + num],
            flat[at + num : at + 2 * num], flat[at + 2 * num : at + 3 * num], numbers,
        )  # fmt: skip


@dataclass(frozen=True)
class Block:
    """n draws in one flat array; every attribute is a view of it. `records` is (n, L + 1, W), the others (n,)."""

    flat: Floats
    records: Floats
    discount: Floats
    weight: Floats
    age: Floats
    numbers: NDArray[np.int64] | None


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
        frames: (n, L + 1, H, W, C), or None.
    """
    shape = (num_batches, *synthetic.shape)
    records = block.records.reshape(*shape, *block.records.shape[1:])
    latents, single = records[..., : schema.latent_size], records.shape[-2] == 2
    steps = records[..., 0, :] if single else records[..., :-1, :]
    batch: dict[str, NDArray[np.generic]] = {
        "action": steps[..., schema.action],
        "reward": steps[..., schema.reward],
        "discount": block.discount.reshape(shape),
        "is_synthetic": np.broadcast_to(synthetic, shape),
        "weight": block.weight.reshape(shape),
        "trust": steps[..., schema.trust],
        "cut": steps[..., schema.cut],
        "age": block.age.reshape(shape),
    }
    if single:
        batch |= {"z": latents[..., 0, :], "next_z": latents[..., 1, :]}
    else:
        batch |= {"z": latents, "terminal": steps[..., schema.terminal]}
    if block.numbers is not None:
        batch["number"] = block.numbers.reshape(shape)
    if frames is not None:
        runs = frames.reshape(*shape, *frames.shape[1:])
        batch |= {"frame": runs[:, :, :, 0], "next_frame": runs[:, :, :, 1]} if single else {"frame": runs}
    return batch
