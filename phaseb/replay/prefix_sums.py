"""Drawing in proportion to weights that change: prefix sums in blocks, brought up to date where they are read.

n weights lie in blocks of 256. A changed weight spoils only its block; a draw searches the blocks' totals and then
bisects one block: O(√n) to bring up to date at worst, O(log n) a draw, and no Python loop over rows in either.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
BLOCK = 256


class PrefixSums:
    """Prefix sums over n weights that are read, block-wise, from elsewhere.

    Args:
        num_rows: n.
        read: gives the weights of rows [begin, stop) as an array; asked only for blocks that were marked.
    """

    def __init__(self, num_rows: int, read: Callable[[int, int], NDArray[np.floating]]) -> None:
        self._num_rows = num_rows
        self._read = read
        num_blocks = -(-num_rows // BLOCK)
        self._sums = np.zeros((num_blocks, BLOCK))
        self._positive = np.zeros(num_blocks, dtype=np.int64)
        self._marked = np.ones(num_blocks, dtype=bool)
        self._cumulative = np.zeros(num_blocks)

    def mark(self, begin: int, stop: int) -> None:
        """Note that the weights of rows [begin, stop) may have changed."""
        if stop > begin:
            self._marked[begin // BLOCK : (stop - 1) // BLOCK + 1] = True

    def mark_rows(self, rows: Integers) -> None:
        """Note that the weights of `rows` may have changed."""
        self._marked[rows // BLOCK] = True

    @property
    def total(self) -> float:
        self._update()
        return float(self._cumulative[-1])

    @property
    def num_positive(self) -> int:
        """Rows that can be drawn."""
        self._update()
        return int(self._positive.sum())

    def find(self, targets: Doubles, start: int = 0) -> Integers:
        """For each target the first row whose inclusive prefix sum exceeds it: a row of positive weight.

        Args:
            targets: (n,) in [0, total).
            start: the row that the sums begin at; they go on from the last row to row 0.
        """
        self._update()
        cumulative = self._cumulative
        if start:
            targets = targets + self._before(start)
            targets = np.where(targets >= cumulative[-1], targets - cumulative[-1], targets)
        targets = np.clip(targets, 0.0, np.nextafter(cumulative[-1], 0.0))  # rounding must not step past the end
        blocks = np.searchsorted(cumulative, targets, side="right")
        totals = self._sums[blocks, -1]
        rest = np.clip(targets - (cumulative[blocks] - totals), 0.0, np.nextafter(totals, 0.0))
        flat = self._sums.reshape(-1)
        rows = blocks * BLOCK
        step = BLOCK // 2
        while step:
            rows += step * (flat.take(rows + (step - 1)) <= rest)
            step //= 2
        return rows

    def _before(self, row: int) -> float:
        block, within = divmod(row, BLOCK)
        earlier = float(self._cumulative[block - 1]) if block else 0.0
        return earlier + (float(self._sums[block, within - 1]) if within else 0.0)

    def _update(self) -> None:
        marked = np.flatnonzero(self._marked)
        if not len(marked):
            return
        for run in np.split(marked, np.flatnonzero(np.diff(marked) > 1) + 1):
            self._sum_blocks(int(run[0]), int(run[-1]) + 1)
        self._cumulative = np.cumsum(self._sums[:, -1])
        self._marked[marked] = False

    def _sum_blocks(self, begin: int, stop: int) -> None:
        first, last = begin * BLOCK, min(stop * BLOCK, self._num_rows)
        weights = np.zeros((stop - begin) * BLOCK)
        weights[: last - first] = self._read(first, last)
        table = weights.reshape(-1, BLOCK)
        np.cumsum(table, axis=1, out=self._sums[begin:stop])
        self._positive[begin:stop] = (table > 0).sum(1)
