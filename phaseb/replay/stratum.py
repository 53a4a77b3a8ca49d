"""The transitions of one source in one shard, and the laws by which they are drawn."""

import numpy as np
from numpy.typing import NDArray

from phaseb.config.policy import ReplayConfig
from phaseb.errors import DataError
from phaseb.replay.plan import DRAWABLE, MASS
from phaseb.replay.prefix_sums import PrefixSums
from phaseb.replay.ring import Inserted, Ring
from phaseb.replay.segments import Segments
from phaseb.replay.spec import SYNTHETIC, SampleSpec

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
ALIKE, PRIORITY = "/alike", "/priority"  # laws beside the weight columns; no column is called so


class StaleWindowError(DataError):
    """A shard was asked to draw from a stratum that has lost its mass since it was last asked for totals."""


class Stratum:
    """A ring with the sums that weighted and prioritised draws need.

    Args:
        ring: the rows.
        config: exponents of the priorities.
    """

    def __init__(self, ring: Ring, config: ReplayConfig) -> None:
        self.ring = ring
        self._config = config
        self._sums: dict[tuple[str, int], PrefixSums] = {}  # by weight column (or ALIKE, PRIORITY) and length
        self._priorities: Floats | None = None  # priority^α of each slot
        self._largest = 1.0

    def insert(self, segments: Segments) -> Inserted:
        """See `Ring.insert`, for segments that were checked; new transitions get the highest priority so far."""
        begin = self.ring.written
        done = self.ring.insert(segments, checked=True)
        for span in self.ring.spans(begin, self.ring.written - begin):
            if self._priorities is not None:
                self._priorities[span] = self._largest
            for sums in self._sums.values():
                sums.mark(span.start, span.stop)
        return done

    def set_weights(self, column: str, codes: Integers, steps: Integers, values: Floats) -> int:
        """Set a weight of the transitions (code, step); returns how many of them are held."""
        slots, there = self.ring.find(codes, steps)
        self.ring.rows[slots[there], self.ring.schema.weight(column)] = values[there]
        self._mark(column, slots[there])
        return int(there.sum())

    def set_priorities(self, numbers: Integers, priorities: Floats) -> int:
        """Set the priorities of rows by number; rows that were overwritten since are left out."""
        scaled = priorities**self._config.priority_exponent
        slots, there = self.ring.slots(numbers)
        self._priority_column()[slots[there]] = scaled[there]
        self._largest = max(self._largest, float(scaled.max(initial=0.0)))
        self._mark(PRIORITY, slots[there])
        return int(there.sum())

    def mass(self, spec: SampleSpec) -> tuple[float, float, float, float]:
        """For a spec, what `plan` calls MASS, DRAWABLE, COUNT and WEIGHT."""
        law = self._law(spec)
        count = float(self.ring.num_transitions) if spec.length == 1 else self._index(ALIKE, spec.length).total
        weight = count
        if self.ring.source == SYNTHETIC and spec.weight_column is not None:
            weight = self._index(spec.weight_column, spec.length).total
        if law == ALIKE:
            return count, count, count, weight
        sums = self._index(law, spec.length)
        return sums.total, float(sums.num_positive), count, weight

    def locate(self, spec: SampleSpec, fractions: Doubles) -> Integers:
        """The slots that numbers in [0, 1) of the stratum's mass fall on.

        Raises:
            StaleWindowError: where it has no mass.
        """
        law = self._law(spec)
        if law != ALIKE or spec.length > 1:
            sums = self._index(law, spec.length)
            if sums.total <= 0:
                raise StaleWindowError(f"{spec.name}: no transition of positive weight is left in this shard")
            return sums.find(fractions * sums.total, self.ring.oldest)
        queue = self.ring.queue
        if not len(queue):
            raise StaleWindowError(f"{spec.name}: this shard has nothing left of a source")
        return queue.at((fractions * len(queue)).astype(np.int64))

    def weights(self, spec: SampleSpec, slots: Integers, totals: Doubles) -> Floats | float:
        """The weights for the loss of transitions that were drawn; `totals` are the stratum's over all shards."""
        if spec.weighting == "loss" and self.ring.source == SYNTHETIC and spec.weight_column is not None:
            return self.ring.rows[slots, self.ring.schema.weight(spec.weight_column)]
        if spec.weighting == "priority":
            relative = self._priority_column()[slots] * (totals[DRAWABLE] / max(totals[MASS], 1e-300))
            return np.asarray(relative**-self._config.importance_exponent, dtype=np.float32)
        return 1.0

    def _law(self, spec: SampleSpec) -> str:
        if spec.weighting == "priority":
            return PRIORITY
        if spec.weighting == "sampling" and self.ring.source == SYNTHETIC and spec.weight_column is not None:
            return spec.weight_column
        return ALIKE

    def _mark(self, column: str, slots: Integers) -> None:
        for (name, _), sums in self._sums.items():
            if name == column:
                sums.mark_rows(slots)

    def _index(self, column: str, length: int) -> PrefixSums:
        """The prefix sums of a weight column, of the priorities, or of ones, over rows that `length` steps follow."""
        if (column, length) not in self._sums:
            ring = self.ring
            values = np.broadcast_to(np.float32(1.0), ring.capacity)
            if column != ALIKE:
                values = self._priority_column() if column == PRIORITY else ring.rows[:, ring.schema.weight(column)]

            def read(begin: int, stop: int) -> NDArray[np.floating]:
                return values[begin:stop] * (ring.left[begin:stop] >= length)

            self._sums[column, length] = PrefixSums(ring.capacity, read)
        return self._sums[column, length]

    def _priority_column(self) -> Floats:
        if self._priorities is None:
            self._priorities = np.full(self.ring.capacity, self._largest, dtype=np.float32)
        return self._priorities
