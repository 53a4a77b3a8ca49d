"""One shard of the buffer as a plain object: a ring, the ways to draw from it, and nothing of Ray."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from phaseb.config.replay import ReplayConfig
from phaseb.errors import DataError
from phaseb.replay.accounting import BOOK_SIZE, book
from phaseb.replay.block import Block, Part, block_size, open_block
from phaseb.replay.buffer_pool import BufferPool
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
        self._pool = BufferPool()

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
        whole = bool((request.window[..., 0] == 0).all() and (request.window[..., 1] == 1).all())
        mine = None if whole else owned(numbers, synthetic, request.window)
        rows = np.empty(numbers.shape, dtype=np.int64)
        weights = np.ones(numbers.shape, dtype=np.float32)
        for r, stratum, place in _strata(synthetic):
            chosen = np.s_[:] if mine is None else mine[place]
            targets = numbers[place][chosen]
            if not targets.size:
                continue
            if mine is not None:
                low, high = request.window[r, stratum]
                targets = np.minimum((targets - low) / (high - low), _BELOW_ONE)
            spec = request.specs[r]
            found = self._locate(spec, stratum, targets.ravel()).reshape(targets.shape)
            rows[place][chosen] = found
            if spec.weighting != "uniform":
                weights[place][chosen] = self._weights(spec, stratum, found, request.totals[r, stratum])
        return self._read(rows, weights, mine, synthetic, request)

    def _read(
        self,
        rows: Integers,
        weights: Floats,
        mine: NDArray[np.bool_] | None,
        synthetic: NDArray[np.bool_],
        request: Request,
    ) -> Part:
        """Copy rows (num_batches, R, share), those that are mine, into a block."""
        shape = rows.shape
        flat_rows, flat_weights = (rows.ravel(), weights.ravel()) if mine is None else (rows[mine], weights[mine])
        numbered = any(spec.weighting == "priority" for spec in request.specs)
        flat = self._pool.take(block_size(self.schema, len(flat_rows), numbered))
        block = open_block(self.schema, flat, len(flat_rows), numbered)
        self.ring.gather(flat_rows, block.records)
        block.weight[:] = flat_weights
        block.age[:] = self.ring.ages(flat_rows)
        if block.numbers is not None:
            block.numbers[:] = self.ring.numbers(flat_rows)
        last = self._look_ahead(flat_rows, block, request)
        books = np.zeros((len(request.specs), 2, BOOK_SIZE))
        columns = (block.weight, block.records[:, self.schema.trust], block.age)
        if mine is not None:
            where = np.zeros(shape, dtype=np.int64)
            where[mine] = np.arange(len(flat_rows))
        for r, stratum, place in _strata(synthetic):
            if mine is None:
                books[r, stratum] = book(*(column.reshape(shape)[place] for column in columns))
            else:
                at = where[place][mine[place]]
                books[r, stratum] = book(*(column[at] for column in columns))
        frames = None if self.ring.frames is None else self.ring.frame_pairs(flat_rows, last)
        return Part(len(flat_rows), flat, books, frames)

    def _look_ahead(self, rows: Integers, block: Block, request: Request) -> Integers:
        """Fill in rewards, discounts, cuts and successors; returns the slots of the successors."""
        last = rows + 1
        if request.n_step == 1:
            np.subtract(1.0, block.records[:, self.schema.terminal], out=block.discount)
            np.multiply(block.discount, request.gamma, out=block.discount)
        else:
            rewards, discounts, last = self.ring.returns(rows, request.n_step, request.gamma)
            block.records[:, self.schema.reward] = rewards
            block.discount[:] = discounts
            block.records[:, self.schema.cut] = self.ring.rows[(last - 1) % self.ring.capacity, self.schema.cut]
            block.records[:, self.schema.width :] = self.ring.rows[last, : self.schema.latent_size]
        return last

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


def _strata(synthetic: NDArray[np.bool_]) -> Iterator[tuple[int, int, tuple[slice, int, slice]]]:
    """(spec, stratum, where its places lie in an array (num_batches, R, share)); real places come first."""
    for r, row in enumerate(synthetic):
        split = int(np.count_nonzero(~row))
        for stratum, place in ((REAL, np.s_[:, r, :split]), (SYNTHETIC, np.s_[:, r, split:])):
            if place[2].start != len(row) and place[2].stop != 0:
                yield r, stratum, place


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


