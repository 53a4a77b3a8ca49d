"""Rows that lie one after the other, read in one piece each: the memory that is touched is what a sample costs."""


import numpy as np
from numpy.typing import NDArray

from phaseb.replay.schema import TransitionSchema

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]


class Runs:
    """Runs of rows out of rings that lie in one array.

    NumPy's `take` copies rows of an array that do not overlap, so a transition and its successor would be two rows, and
    the successor's action, reward and weights would be read for nobody. A view whose items overlap, one run each, lets
    fancy indexing copy exactly what is wanted, in one piece.

    Args:
        schema: of the rows.
        rows: (S · (capacity + 1), W): S rings of equal size, behind the last row of each its first one again.
        num_rings: S.
    """

    def __init__(self, schema: TransitionSchema, rows: Floats, num_rings: int) -> None:
        self._schema, self._rows = schema, rows
        self._ring_size = len(rows) // num_rings
        self._views: dict[int, NDArray[np.void]] = {}  # by length

    def read(self, begins: Integers, length: int) -> Floats:
        """(n, run): `length` records and the next observation (see `TransitionSchema.run`), from each row on."""
        view, run = self._view(length), self._schema.run(length)
        if length == 1:
            return view[begins].view(np.float32).reshape(-1, run)
        records: Floats = view[np.minimum(begins, len(view) - 1)].view(np.float32).reshape(-1, run)
        over = np.flatnonzero(begins % self._ring_size + length >= self._ring_size)  # goes on at the ring's beginning
        around = self._rows[self.rows(begins[over], length)]
        records[over] = around.reshape(len(over), (length + 1) * self._schema.width)[:, :run]
        return records

    def rows(self, begins: Integers, length: int) -> Integers:
        """(n, length + 1): each row and those behind it, around the end of its ring."""
        slots = begins % self._ring_size
        behind = (slots[:, None] + np.arange(length + 1)) % (self._ring_size - 1)
        return (begins - slots)[:, None] + behind

    def _view(self, length: int) -> NDArray[np.void]:
        if length not in self._views:
            run = self._schema.run(length)
            count = (self._rows.size - run) // self._schema.width + 1
            item = np.dtype((np.void, run * self._rows.itemsize))
            self._views[length] = np.ndarray((count,), item, self._rows, strides=self._rows.strides[:1])
        return self._views[length]
