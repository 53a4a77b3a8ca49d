"""Drawing in proportion to weights that change: prefix sums in blocks, brought up to date where they are read.

n weights lie in blocks of 256. A changed weight spoils only its block; a draw searches the blocks' totals and then
bisects one block, O(log n). Weights that rest for a while get a guide table, and a draw then costs O(1): the guide
tells for each of n / 2 equal parts of the total on which row it begins (Chen and Asau, 1974). No Python loop over rows.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
BLOCK = 256
DRAWS_PER_ROW = 0.125  # draws from unchanged weights before a guide has earned what it costs to make
MAX_WALK = 8


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
        self._before = np.zeros(num_blocks + 1)  # of each block the sum of all blocks before it; at the end the total
        self._guide: NDArray[np.int32] | None = None
        self._num_drawn = 0

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
        return float(self._before[-1])

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
        total = self._before[-1]
        if start:
            targets = targets + float(self._sum_to(np.array([start - 1]))[0])
            targets = np.where(targets >= total, targets - total, targets)
        targets = np.minimum(targets, np.nextafter(total, 0.0))  # rounding must not step past the end
        self._num_drawn += len(targets)
        if self._guide is None and self._num_drawn > self._num_rows * DRAWS_PER_ROW:
            self._guide = self._make_guide()
        return self._bisect(targets) if self._guide is None else self._walk(targets, self._guide)

    def _bisect(self, targets: Doubles) -> Integers:
        blocks = np.searchsorted(self._before[1:], targets, side="right")
        rows = blocks * BLOCK
        step = BLOCK // 2
        while step:
            rows += step * (self._sum_to(rows + (step - 1)) <= targets)
            step //= 2
        return rows

    def _walk(self, targets: Doubles, guide: NDArray[np.int32]) -> Integers:
        """Start where the guide points, a few rows before the one that is sought."""
        scale = len(guide) / self._before[-1]
        rows = guide.take(np.minimum((targets * scale).astype(np.int64), len(guide) - 1)).astype(np.int64)
        ahead = np.flatnonzero(self._sum_to(rows) <= targets)
        for _ in range(MAX_WALK):
            if not len(ahead):
                return rows
            rows[ahead] += 1
            ahead = ahead[self._sum_to(rows[ahead]) <= targets[ahead]]
        rows[ahead] = self._bisect(targets[ahead])
        return rows

    def _make_guide(self) -> NDArray[np.int32]:
        """For each of n / 2 equal parts of the total, the row that a target at its beginning falls on."""
        sums = (self._before[:-1, None] + self._sums).reshape(-1)
        # A hair lower, so that rounding never makes a walk start behind its goal.
        num_parts = (self._num_rows + 1) // 2
        edges = np.arange(num_parts) * (self._before[-1] / num_parts * (1 - 1e-12))
        return np.searchsorted(sums, edges, side="right").astype(np.int32)

    def _sum_to(self, rows: Integers) -> Doubles:
        """The inclusive prefix sums at rows: the one expression that decides which row a target falls on."""
        return self._before.take(rows // BLOCK) + self._sums.reshape(-1).take(rows)

    def _update(self) -> None:
        marked = np.flatnonzero(self._marked)
        if not len(marked):
            return
        for run in np.split(marked, np.flatnonzero(np.diff(marked) > 1) + 1):
            self._sum_blocks(int(run[0]), int(run[-1]) + 1)
        np.cumsum(self._sums[:, -1], out=self._before[1:])
        self._marked[marked] = False
        self._guide, self._num_drawn = None, 0

    def _sum_blocks(self, begin: int, stop: int) -> None:
        first, last = begin * BLOCK, min(stop * BLOCK, self._num_rows)
        weights = np.zeros((stop - begin) * BLOCK)
        weights[: last - first] = self._read(first, last)
        table = weights.reshape(-1, BLOCK)
        np.cumsum(table, axis=1, out=self._sums[begin:stop])
        self._positive[begin:stop] = (table > 0).sum(1)
