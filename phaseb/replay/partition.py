"""One shard of the buffer as a plain object: a ring for each source, and batches out of both. Nothing of Ray.

Real and synthetic transitions have rings of their own, so that synthetic data, however much, never pushes real data
out. Both rings lie in one array, so that a batch of both is gathered in one go: `place` = slot + where the ring begins.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.policy import ReplayConfig
from phaseb.errors import DataError
from phaseb.replay.accounting import BOOK_SIZE, sampling_stats
from phaseb.replay.assembly import AGE, DISCOUNT, NUM_COLUMNS, WEIGHT, ShardBatch
from phaseb.replay.plan import NUM_TOTALS, SampleRequest, owned, places
from phaseb.replay.ring import InsertCounts, Ring
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import SOURCES, Segments, join, rows_per_shard
from phaseb.replay.spec import REAL, SYNTHETIC, SampleSpec
from phaseb.replay.stratum import Stratum

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class Runs:
    """Records and the observation behind each, out of rings that lie in one array.

    NumPy's `take` copies rows of an array that do not overlap, so a transition and its successor would be two rows, and
    the successor's action, reward and weights would be read for nobody. A view whose items overlap, one run each, lets
    fancy indexing copy exactly what is wanted, in one piece.

    Args:
        schema: of the rows.
        rows: (S · (capacity + 1), W): S rings of equal size, behind the last row of each its first one again.
    """

    def __init__(self, schema: TransitionSchema, rows: Floats) -> None:
        self._run = schema.run
        count = (rows.size - self._run) // schema.width + 1
        item = np.dtype((np.void, self._run * rows.itemsize))
        self._view: NDArray[np.void] = np.ndarray((count,), item, rows, strides=rows.strides[:1])

    def read(self, begins: Integers) -> Floats:
        """(n, run): the record of each row and the next observation (see `TransitionSchema.run`)."""
        return self._view[begins].view(np.float32).reshape(-1, self._run)


Mask = NDArray[np.bool_]
Place = tuple[slice, int, slice]
Pick = Callable[[Floats], Floats]
_BELOW_ONE = float(np.nextafter(1.0, 0.0))


class Partition:
    """Rows of one shard, drawn by uniform or weighted laws.

    Args:
        schema: the columns of a record.
        config: capacities are of all shards together; this one takes its equal part.
    """

    def __init__(self, schema: TransitionSchema, config: ReplayConfig) -> None:
        self.schema = schema
        size = rows_per_shard(config) + 1
        self._begins = [source * size for source in range(len(SOURCES))]
        self._rows = np.zeros((len(SOURCES) * size, schema.width), dtype=np.float32)
        self.strata = [Stratum(self._ring(source, size)) for source in range(len(SOURCES))]
        self._runs = Runs(schema, self._rows)

    @property
    def num_transitions(self) -> int:
        return sum(stratum.ring.num_transitions for stratum in self.strata)

    def insert(self, segments: Segments, checked: bool = False) -> InsertCounts:
        """Take segments in, into the rings of their sources; see `Ring.insert`."""
        parts = self._by_source(segments)
        if not checked:
            for source, part in parts:
                self.strata[source].ring.check(part)
        return sum((self.strata[source].insert(part) for source, part in parts), InsertCounts(0, 0, 0))

    def check(self, segments: Segments) -> None:
        """Raises DataError where `insert` would refuse the segments."""
        for source, part in self._by_source(segments):
            self.strata[source].ring.check(part)

    def unknown(self, segments: Segments) -> Segments:
        """The segments without the transitions that are held already."""
        return join([self.strata[source].ring.table.unknown(part) for source, part in self._by_source(segments)])

    def export(self) -> Segments:
        """All that is held, real first, oldest first."""
        return join([stratum.ring.export() for stratum in self.strata])

    def set_weights(self, column: str, codes: Integers, steps: Integers, values: Floats) -> int:
        """Set a weight of the transitions (code, step); returns how many of them are held.

        Raises:
            DataError: an unknown column, NaN or negative weights; nothing is changed.
        """
        self.schema.weight(column)
        values = np.asarray(values, dtype=np.float32)
        _check_weights(column, values)
        return sum(stratum.set_weights(column, codes, steps, values) for stratum in self.strata)

    def status(self) -> dict[str, Any]:
        """What is held of either source, and the share of the fuller ring that is in use."""
        real, synthetic = (stratum.ring for stratum in self.strata)
        return {
            "num_transitions": self.num_transitions,
            "num_real": real.num_transitions,
            "num_synthetic": synthetic.num_transitions,
            "fill": max(min(1.0, ring.written / ring.capacity) for ring in (real, synthetic)),
        }

    def masses(self, specs: Sequence[SampleSpec]) -> Doubles:
        """(R, 2, 4): of each spec and stratum, what `plan` calls MASS, DRAWABLE, COUNT and WEIGHT."""
        table = [[stratum.mass(spec) for stratum in self.strata] for spec in specs]
        return np.array(table, dtype=np.float64).reshape(len(specs), len(SOURCES), NUM_TOTALS)

    def sample(self, request: SampleRequest) -> ShardBatch:
        """This shard's part of some batches, in the order of the batches' places.

        Raises:
            StaleWindowError: where a draw falls on a stratum that is empty here by now.
        """
        numbers, synthetic = places(request)
        whole = bool((request.window[..., 0] == 0).all() and (request.window[..., 1] == 1).all())
        mine = None if whole else owned(numbers, synthetic, request.window)
        rows = np.empty(numbers.shape, dtype=np.int64)
        weights = np.ones(numbers.shape, dtype=np.float32)
        ages = np.empty(numbers.shape, dtype=np.float32)
        steps = request.shape.chunk_steps
        chunks = np.empty((*numbers.shape, steps, self.schema.action_size + 1), np.float32) if steps > 1 else None
        for r, source, place in _strata(synthetic):
            chosen = np.s_[:] if mine is None else mine[place]
            targets = numbers[place][chosen]
            if not targets.size:
                continue
            if mine is not None:
                low, high = request.window[r, source]
                targets = np.minimum((targets - low) / (high - low), _BELOW_ONE)
            spec, stratum = request.specs[r], self.strata[source]
            slots = stratum.locate(spec, targets.ravel()).reshape(targets.shape)
            rows[place][chosen] = slots + self._begins[source]
            ages[place][chosen] = stratum.ring.ages(slots)
            if spec.weighting != "uniform":
                weights[place][chosen] = stratum.weights(spec, slots)
            if chunks is not None:
                chunks[place][chosen] = stratum.chunks(spec, slots, steps)
        part = self._read(rows, weights, ages, mine, synthetic, request)
        if chunks is None:
            return part
        flat = chunks.reshape(-1, *chunks.shape[3:]) if mine is None else chunks[mine]
        return replace(part, chunks=flat)

    def _read(
        self, rows: Integers, weights: Floats, ages: Floats, mine: Mask | None, synthetic: Mask, request: SampleRequest
    ) -> ShardBatch:
        """Copy the runs that begin at rows (num_batches, R, share), those that are mine."""
        flat = rows.ravel() if mine is None else rows[mine]
        records = self._runs.read(flat)
        columns = np.empty((NUM_COLUMNS, len(flat)), dtype=np.float32)
        columns[WEIGHT] = weights.ravel() if mine is None else weights[mine]
        columns[AGE] = ages.ravel() if mine is None else ages[mine]
        ends = records[:, self.schema.terminal]
        np.multiply(np.subtract(1.0, ends), request.gamma, out=columns[DISCOUNT])
        stats = np.zeros((len(request.specs), len(SOURCES), BOOK_SIZE))
        for r, source, pick in _picks(synthetic, mine, rows.shape):
            trust = pick(records[:, self.schema.trust])
            stats[r, source] = sampling_stats(pick(columns[WEIGHT]), trust, pick(columns[AGE]))
        return ShardBatch(records, columns, stats)

    def _ring(self, source: int, size: int) -> Ring:
        span = slice(self._begins[source], self._begins[source] + size)
        return Ring(self.schema, self._rows[span], source)

    def _by_source(self, segments: Segments) -> list[tuple[int, Segments]]:
        self.schema.require(segments.schema, "an insert")
        first = int(segments.sources[0]) if len(segments) else REAL
        if first < len(SOURCES) and (segments.sources == first).all():
            return [(first, segments)]
        segments.check()
        return [(source, segments.select(segments.sources == source)) for source in range(len(SOURCES))]


def _strata(synthetic: Mask) -> Iterator[tuple[int, int, Place]]:
    """(spec, source, where its places lie in an array (num_batches, R, share)); real places come first."""
    for r, row in enumerate(synthetic):
        split = int(np.count_nonzero(~row))
        if split:
            yield r, REAL, np.s_[:, r, :split]
        if split < len(row):
            yield r, SYNTHETIC, np.s_[:, r, split:]


def _picks(synthetic: Mask, mine: Mask | None, shape: tuple[int, ...]) -> Iterator[tuple[int, int, Pick]]:
    """(spec, source, what takes its draws out of a column (n,)): views, where all places are this shard's."""
    number = None if mine is None else np.cumsum(mine).reshape(shape) - 1
    for r, source, place in _strata(synthetic):
        if mine is None or number is None:
            yield r, source, partial(_cut, shape, place)
        else:
            yield r, source, partial(_at, number[place][mine[place]])


def _cut(shape: tuple[int, ...], place: Place, column: Floats) -> Floats:
    return column.reshape(shape)[place]


def _at(index: Integers, column: Floats) -> Floats:
    return column[index]


def _check_weights(name: str, values: NDArray[np.floating]) -> None:
    if not np.isfinite(values).all():
        raise DataError(f"weights {name!r} have NaN or Inf; nothing was changed")
    if (values < 0).any():
        raise DataError(f"weights {name!r} must not be negative; nothing was changed")
