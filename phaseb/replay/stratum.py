"""The transitions of one source in one shard, and the laws by which they are drawn."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from phaseb.errors import DataError
from phaseb.replay.ring import InsertCounts, Ring
from phaseb.replay.segments import Segments
from phaseb.replay.spec import SYNTHETIC, SampleSpec

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
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


ALIKE = "/alike"  # the law beside the weight columns; no column is called so


class StaleWindowError(DataError):
    """A shard was asked to draw from a stratum that has lost its mass since it was last asked for totals."""


class Stratum:
    """A ring with the sums that weighted draws need."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self._sums: dict[str, PrefixSums] = {}  # by weight column

    def insert(self, segments: Segments) -> InsertCounts:
        """See `Ring.insert`, for segments that were checked."""
        begin = self.ring.written
        done = self.ring.insert(segments, checked=True)
        for span in self.ring.spans(begin, self.ring.written - begin):
            for sums in self._sums.values():
                sums.mark(span.start, span.stop)
        return done

    def set_weights(self, column: str, codes: Integers, steps: Integers, values: Floats) -> int:
        """Set a weight of the transitions (code, step); returns how many of them are held."""
        slots, there = self.ring.find(codes, steps)
        self.ring.rows[slots[there], self.ring.schema.weight(column)] = values[there]
        self._mark(column, slots[there])
        return int(there.sum())

    def mass(self, spec: SampleSpec) -> tuple[float, float, float, float]:
        """For a spec, what `plan` calls MASS, DRAWABLE, COUNT and WEIGHT."""
        law = self._law(spec)
        count = float(self.ring.num_transitions)
        weight = count
        if self.ring.source == SYNTHETIC and spec.weight_column is not None:
            weight = self._index(spec.weight_column).total
        if law == ALIKE:
            return count, count, count, weight
        sums = self._index(law)
        return sums.total, float(sums.num_positive), count, weight

    def locate(self, spec: SampleSpec, fractions: Doubles) -> Integers:
        """The slots that numbers in [0, 1) of the stratum's mass fall on.

        Raises:
            StaleWindowError: where it has no mass.
        """
        law = self._law(spec)
        if law != ALIKE:
            sums = self._index(law)
            if sums.total <= 0:
                raise StaleWindowError(f"{spec.name}: no transition of positive weight is left in this shard")
            return sums.find(fractions * sums.total, self.ring.oldest)
        queue = self.ring.queue
        if not len(queue):
            raise StaleWindowError(f"{spec.name}: this shard has nothing left of a source")
        return queue.at((fractions * len(queue)).astype(np.int64))

    def weights(self, spec: SampleSpec, slots: Integers) -> Floats | float:
        """The weights for the loss of transitions that were drawn."""
        if spec.weighting == "loss" and self.ring.source == SYNTHETIC and spec.weight_column is not None:
            return self.ring.rows[slots, self.ring.schema.weight(spec.weight_column)]
        return 1.0

    def chunks(self, spec: SampleSpec, slots: Integers, num_steps: int) -> Floats:
        """(…, K, A + 1) the actions of K steps from each slot (…) on, and their shares of the first one's weight.

        A chunk ends with its episode: actions and shares are 0 beyond. A step counts with the least weight of the
        chunk up to it, so nothing behind an untrusted step counts.
        """
        ring, schema = self.ring, self.ring.schema
        steps = np.arange(num_steps)
        inside = steps < ring.left[slots][..., None]
        rows = ring.rows[(slots[..., None] + steps) % ring.capacity]
        found = np.zeros((*slots.shape, num_steps, schema.action_size + 1), np.float32)
        found[..., :-1] = rows[..., schema.action] * inside[..., None]
        found[..., -1] = inside
        if spec.weighting != "uniform" and ring.source == SYNTHETIC and spec.weight_column is not None:
            least = np.minimum.accumulate(rows[..., schema.weight(spec.weight_column)] * inside, -1)
            found[..., -1] = np.divide(least, least[..., :1], out=np.zeros_like(least), where=least[..., :1] > 0)
        return found

    def _law(self, spec: SampleSpec) -> str:
        if spec.weighting == "sampling" and self.ring.source == SYNTHETIC and spec.weight_column is not None:
            return spec.weight_column
        return ALIKE

    def _mark(self, column: str, slots: Integers) -> None:
        if column in self._sums:
            self._sums[column].mark_rows(slots)

    def _index(self, column: str) -> PrefixSums:
        """The prefix sums of a weight column over the rows that hold a transition."""
        if column not in self._sums:
            ring = self.ring
            values = ring.rows[:, ring.schema.weight(column)]

            def read(begin: int, stop: int) -> NDArray[np.floating]:
                return values[begin:stop] * (ring.left[begin:stop] > 0)

            self._sums[column] = PrefixSums(ring.capacity, read)
        return self._sums[column]
