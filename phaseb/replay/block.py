"""Batches as they travel: a few flat arrays, of which a learner's arrays are views.

A draw of L transitions in a row is one run of memory, out of a ring as on its way: L records and, behind them, the
observation that the last one leads to. L = 1: a transition and its successor, nothing that nobody reads.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from phaseb.replay.schema import TransitionSchema

Floats = NDArray[np.float32]
DISCOUNT, WEIGHT, AGE = 0, 1, 2
NUM_COLUMNS = 3


@dataclass(frozen=True)
class Part:
    """n draws that a shard gives, or that were put together from several shards'.

    Attributes:
        records: (n, run) with run = L · W + D, see `TransitionSchema.run`.
        columns: (3, n) discount, weight for the loss, age.
        numbers: (n,) row numbers where priorities are wanted, else None.
        books: of what was drawn.
        frames: (n, L + 1, H, W, C), or None.
    """

    records: Floats
    columns: Floats
    numbers: NDArray[np.int64] | None
    books: NDArray[np.float64]
    frames: NDArray[np.uint8] | None = None

    @property
    def num_draws(self) -> int:
        return len(self.records)


def as_batches(
    schema: TransitionSchema, part: Part, length: int, synthetic: NDArray[np.bool_], num_batches: int
) -> dict[str, NDArray[np.generic]]:
    """The learner's arrays, (num_batches, R, B, …), without a copy.

    Args:
        length: L.
        synthetic: (R, B) which places of a batch are synthetic.
    """
    shape = (num_batches, *synthetic.shape)
    records = part.records.reshape(*shape, part.records.shape[1])
    steps: Floats = records[..., : length * schema.width]
    if length > 1:
        steps = steps.reshape(*shape, length, schema.width)
    batch: dict[str, NDArray[np.generic]] = {
        "action": steps[..., schema.action],
        "reward": steps[..., schema.reward],
        "discount": part.columns[DISCOUNT].reshape(shape),
        "is_synthetic": np.broadcast_to(synthetic, shape),
        "weight": part.columns[WEIGHT].reshape(shape),
        "trust": steps[..., schema.trust],
        "cut": steps[..., schema.cut],
        "age": part.columns[AGE].reshape(shape),
    }
    if length == 1:
        batch |= {"z": records[..., : schema.latent_size], "next_z": records[..., schema.width :]}
    else:
        batch |= {"z": _observations(schema, records, length), "terminal": steps[..., schema.terminal]}
    if part.numbers is not None:
        batch["number"] = part.numbers.reshape(shape)
    if part.frames is not None:
        runs = part.frames.reshape(*shape, *part.frames.shape[1:])
        batch |= {"frame": runs[:, :, :, 0], "next_frame": runs[:, :, :, 1]} if length == 1 else {"frame": runs}
    return batch


def as_items(runs: Floats) -> NDArray[np.void]:
    """(n,): each run (n, run) as one opaque item, so that NumPy moves it in one piece."""
    return runs.view(np.dtype((np.void, runs.shape[1] * runs.itemsize)))[:, 0]


def _observations(schema: TransitionSchema, records: Floats, length: int) -> Floats:
    """(…, L + 1, D): the observations of runs (…, run), as a view."""
    shape = (*records.shape[:-1], length + 1, schema.latent_size)
    strides = (*records.strides[:-1], schema.width * records.itemsize, records.itemsize)
    return as_strided(records, shape, strides, writeable=records.flags.writeable)
