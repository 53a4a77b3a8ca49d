"""The rows of one source, oldest first: a queue in an array, so that a uniform draw is one look-up."""

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


class RowQueue:
    """First in, first out, of at most `capacity` row numbers (untouched memory is never paged in)."""

    def __init__(self, capacity: int) -> None:
        self._rows = np.empty(capacity, dtype=np.int32 if capacity < 2**31 else np.int64)
        self._first = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, rows: NDArray[np.integer]) -> None:
        assert self._count + len(rows) <= len(self._rows)
        begin = (self._first + self._count) % len(self._rows)
        head = min(len(rows), len(self._rows) - begin)
        self._rows[begin : begin + head] = rows[:head]
        self._rows[: len(rows) - head] = rows[head:]
        self._count += len(rows)

    def drop(self, count: int) -> None:
        """Forget the oldest `count`."""
        assert count <= self._count
        self._first = (self._first + count) % len(self._rows)
        self._count -= count

    def at(self, positions: Integers) -> Integers:
        """The rows at positions counted from the oldest."""
        places = positions + self._first
        if self._first + self._count > len(self._rows):
            places %= len(self._rows)
        return self._rows.take(places).astype(np.int64)
