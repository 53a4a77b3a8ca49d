"""One shard of the buffer as a plain object: a ring, the ways to draw from it, and nothing of Ray."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phaseb.config.replay import ReplayConfig
from phaseb.errors import DataError
from phaseb.replay.block import Part, block_size, open_block
from phaseb.replay.plan import DRAWABLE, MASS, NUM_TOTALS, Request, owned, places
from phaseb.replay.prefix_sums import PrefixSums
from phaseb.replay.ring import Inserted, Ring
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import Segments
from phaseb.replay.spec import REAL, SYNTHETIC, SampleSpec

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class StaleWindowError(DataError):
    """A shard was asked to draw from a stratum that has lost its mass since it was last asked for totals."""


class Partition:
    """Rows of one shard, drawn by uniform, weighted or prioritised laws.

    Args:
        schema: the columns of a record.
        config: capacities are of all shards together; this one takes its equal part.
    """

    def __init__(self, schema: TransitionSchema, config: ReplayConfig) -> None:
        self.schema = schema
        self.config = config
        self.ring = Ring(schema, rows_per_shard(schema, config))
        self._sums: dict[tuple[int, str | None], PrefixSums] = {}
        self._priorities: Floats | None = None  # priority^α of each slot
        self._largest = 1.0

    def insert(self, segments: Segments) -> Inserted:
        """Take segments in; see `Ring.insert`."""
        begin = self.ring.written
        done = self.ring.insert(segments)
        self._note_written(begin)
        return done

    def set_weights(self, column: str, codes: Integers, steps: Integers, values: Floats) -> int:
        """Set a weight of the transitions (code, step); returns how many of them are held.

        Raises:
            DataError: an unknown column, NaN or negative weights; nothing is changed.
        """
        index = self.schema.weight(column)
        values = np.asarray(values, dtype=np.float32)
        _check_weights(column, values)
        rows, there = self.ring.find(codes, steps)
        self.ring.rows[rows[there], index] = values[there]
        for (_, name), sums in self._sums.items():
            if name == column:
                sums.mark_rows(rows[there])
        return int(there.sum())

    def set_priorities(self, numbers: Integers, priorities: Floats) -> int:
        """Set the priorities of rows by number (`number` of a batch); rows overwritten since are left out."""
        _check_weights("priority", priorities)
        scaled = np.asarray(priorities, dtype=np.float32) ** self.config.priority_exponent
        rows, there = self.ring.slots(numbers)
        self._priority_column()[rows[there]] = scaled[there]
        self._largest = max(self._largest, float(scaled.max(initial=0.0)))
        for (_, name), sums in self._sums.items():
            if name is None:
                sums.mark_rows(rows[there])
        return int(there.sum())

    def masses(self, specs: Sequence[SampleSpec]) -> Doubles:
        """(R, 2, 4): of each spec and stratum, what `plan` calls MASS, DRAWABLE, COUNT and WEIGHT."""
        table = np.zeros((len(specs), 2, NUM_TOTALS))
        for r, spec in enumerate(specs):
            for stratum in (REAL, SYNTHETIC):
                table[r, stratum] = self._mass(spec, stratum)
        return table

    def sample(self, request: Request) -> Part:
        """This shard's part of some batches, in the order of the batches' places.

        Raises:
            StaleWindowError: where a draw falls on a stratum that is empty here by now.
        """
        numbers, synthetic = places(request)
        rows = np.empty(numbers.shape, dtype=np.int64)
        weights = np.ones(numbers.shape, dtype=np.float32)
        whole = bool((request.window[..., 0] == 0).all() and (request.window[..., 1] == 1).all())
        mine = None if whole else owned(numbers, synthetic, request.window)
        for r, spec in enumerate(request.specs):
            split = int(np.count_nonzero(~synthetic[r]))
            for stratum, part in ((REAL, np.s_[:, r, :split]), (SYNTHETIC, np.s_[:, r, split:])):
                low, high = request.window[r, stratum]
                chosen = np.s_[:] if mine is None else mine[part]
                targets = np.minimum((numbers[part][chosen] - low) / max(high - low, 1e-300), _BELOW_ONE)
                if targets.size:
                    found = self._locate(spec, stratum, targets.ravel()).reshape(targets.shape)
                    rows[part][chosen] = found
                    weights[part][chosen] = self._weights(spec, stratum, found, request.totals[r, stratum])
        flat_rows, flat_weights = (rows.ravel(), weights.ravel()) if mine is None else (rows[mine], weights[mine])
        return self._read(flat_rows, flat_weights, request)

    def _read(self, rows: Integers, weights: Floats, request: Request) -> Part:
        numbered = any(spec.weighting == "priority" for spec in request.specs)
        flat = np.empty(block_size(self.schema, len(rows), numbered), dtype=np.float32)
        block = open_block(self.schema, flat, len(rows), numbered)
        self.ring.gather(rows, block.records)
        block.weight[:] = weights
        block.age[:] = self.ring.ages(rows)
        np.less_equal(self.ring.left[rows], request.n_step, out=block.cut, casting="unsafe")
        if block.numbers is not None:
            block.numbers[:] = self.ring.numbers(rows)
        last = rows + 1
        if request.n_step == 1:
            np.subtract(1.0, block.records[:, self.schema.terminal], out=block.discount)
            np.multiply(block.discount, request.gamma, out=block.discount)
        else:
            rewards, discounts, last = self.ring.returns(rows, request.n_step, request.gamma)
            block.records[:, self.schema.reward] = rewards
            block.discount[:] = discounts
            block.records[:, self.schema.width :] = self.ring.rows[last, : self.schema.latent_size]
        np.multiply(block.cut, block.discount > 0, out=block.cut)
        return Part(len(rows), flat, None if self.ring.frames is None else self.ring.frame_pairs(rows, last))

    def _mass(self, spec: SampleSpec, stratum: int) -> tuple[float, float, float, float]:
        count = float(len(self.ring.queues[stratum]))
        weight = count
        if stratum == SYNTHETIC and spec.weight_column is not None:
            sums = self._index(stratum, spec.weight_column)
            weight = sums.total
            if spec.weighting == "sampling":
                return sums.total, float(sums.num_positive), count, weight
        if spec.weighting == "priority":
            sums = self._index(stratum, None)
            return sums.total, float(sums.num_positive), count, weight
        return count, count, count, weight

    def _locate(self, spec: SampleSpec, stratum: int, fractions: Doubles) -> Integers:
        """Rows for numbers in [0, 1) of a stratum's mass."""
        weighted = spec.weighting == "priority" or (spec.weighting == "sampling" and stratum == SYNTHETIC)
        if weighted:
            sums = self._index(stratum, None if spec.weighting == "priority" else spec.weight_column)
            if sums.total <= 0:
                raise StaleWindowError(f"{spec.name}: no transition of positive weight is left in this shard")
            return sums.find(fractions * sums.total, self.ring.oldest)
        queue = self.ring.queues[stratum]
        if not len(queue):
            raise StaleWindowError(f"{spec.name}: this shard is empty")
        return queue.at((fractions * len(queue)).astype(np.int64))

    def _weights(self, spec: SampleSpec, stratum: int, rows: Integers, totals: Doubles) -> Floats | float:
        if spec.weighting == "loss" and stratum == SYNTHETIC and spec.weight_column is not None:
            return self.ring.rows[rows, self.schema.weight(spec.weight_column)]
        if spec.weighting == "priority":
            probability = self._priority_column()[rows] * (totals[DRAWABLE] / max(totals[MASS], 1e-300))
            return np.asarray(probability ** -self.config.importance_exponent, dtype=np.float32)
        return 1.0

    def _index(self, stratum: int, column: str | None) -> PrefixSums:
        """The prefix sums of a weight column (None: of the priorities) over the rows of a stratum."""
        key = (stratum, column)
        if key not in self._sums:
            values = self._priority_column() if column is None else self.ring.rows[:, self.schema.weight(column)]

            def read(begin: int, stop: int) -> NDArray[np.floating]:
                valid = (self.ring.source[begin:stop] == stratum) & (self.ring.left[begin:stop] > 0)
                return values[begin:stop] * valid

            self._sums[key] = PrefixSums(self.ring.capacity, read)
        return self._sums[key]

    def _priority_column(self) -> Floats:
        if self._priorities is None:
            self._priorities = np.full(self.ring.capacity, self._largest, dtype=np.float32)
        return self._priorities

    def _note_written(self, begin: int) -> None:
        """Bring what is derived from the rows in step with rows `begin` … `written`; new ones get the top priority."""
        for span in self.ring.spans(begin, self.ring.written - begin):
            if self._priorities is not None:
                self._priorities[span] = self._largest
            for sums in self._sums.values():
                sums.mark(span.start, span.stop)


_BELOW_ONE = float(np.nextafter(1.0, 0.0))


def rows_per_shard(schema: TransitionSchema, config: ReplayConfig) -> int:
    """The rows that one shard has room for: its part of the capacity, in transitions or in bytes, the smaller."""
    rows = -(-config.capacity // config.num_shards)
    if config.capacity_bytes is not None:
        rows = min(rows, config.capacity_bytes // config.num_shards // schema.row_bytes)
    return max(rows, 2)


def _check_weights(name: str, values: NDArray[np.floating]) -> None:
    if not np.isfinite(values).all():
        raise DataError(f"weights {name!r} have NaN or Inf; nothing was changed")
    if (values < 0).any():
        raise DataError(f"weights {name!r} must not be negative; nothing was changed")


