"""A ring of records of one source: written in bulk, the oldest rows overwritten, read by slot."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.errors import DataError
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segment_table import SegmentTable
from phaseb.replay.segments import Segments

Floats = NDArray[np.float32]
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


@dataclass(frozen=True)
class InsertCounts:
    """What an insert did: transitions taken in, refused as known already, and pushed out by it."""

    inserted: int
    duplicates: int
    evicted: int

    def __add__(self, other: "InsertCounts") -> "InsertCounts":
        return InsertCounts(
            self.inserted + other.inserted, self.duplicates + other.duplicates, self.evicted + other.evicted
        )


class Ring:
    """The newest rows of all that was inserted, each in a slot of fixed size.

    Row numbers are slots, 0 … capacity − 1. `written` counts all rows ever written, so slot = number % capacity, and
    a transition's age is the number of rows written after it.

    Args:
        schema: the columns of a record.
        rows: (capacity + 1, W) its memory. A segment of T transitions takes T + 1 rows. The last row is row 0's
            observation again, so that every row's successor lies behind it.
        source: index into SOURCES.
    """

    def __init__(self, schema: TransitionSchema, rows: Floats, source: int) -> None:
        capacity = len(rows) - 1
        if capacity < 2:
            raise ValueError(f"a ring of {capacity} rows cannot hold a transition")
        self.source = source
        self.schema = schema
        self.capacity = capacity
        self.rows = rows
        self.left = np.zeros(capacity, dtype=np.int32)  # transitions to the segment's end, this one included; 0: none
        self.queue = RowQueue(capacity)
        self.table = SegmentTable()
        self.written = 0

    @property
    def num_transitions(self) -> int:
        return len(self.queue)

    @property
    def oldest(self) -> int:
        """The slot of the oldest row."""
        return max(0, self.written - self.capacity) % self.capacity

    def insert(self, segments: Segments, checked: bool = False) -> InsertCounts:
        """Write segments, newest last, without those transitions that are held already.

        Args:
            segments: all of this ring's source.
            checked: they have passed `check`.

        Raises:
            DataError: schema mismatch, NaN, negative weights, a segment that the ring cannot hold; nothing is changed.
        """
        if not checked:
            self.check(segments)
        fresh = self.table.unknown(segments)
        before = self.num_transitions
        for part in self._portions(fresh):
            self._write(part)
        evicted = before + fresh.num_transitions - self.num_transitions
        return InsertCounts(fresh.num_transitions, segments.num_transitions - fresh.num_transitions, evicted)

    def check(self, segments: Segments) -> None:
        """Raises DataError where `insert` would refuse the segments."""
        self.schema.require(segments.schema, "an insert")
        segments.check()
        require_room(segments, self.capacity)

    def spans(self, begin: int, count: int) -> list[slice]:
        """The slots of `count` rows from number `begin` on, as one or two slices in that order."""
        first = begin % self.capacity
        count = min(count, self.capacity)
        behind = first + count - self.capacity
        return [slice(first, first + count)] if behind <= 0 else [slice(first, self.capacity), slice(0, behind)]

    def ages(self, rows: Integers) -> Integers:
        """Rows written after each row."""
        return (self.written - 1 - rows) % self.capacity

    def slots(self, numbers: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        """The slots of rows by number, and which of them are still there."""
        there = (numbers >= max(0, self.written - self.capacity)) & (numbers < self.written)
        return numbers % self.capacity, there

    def find(self, codes: Integers, steps: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        """The slots of transitions by (episode code, step), and which of them are held."""
        numbers, known = self.table.find(codes, steps)
        slots, there = self.slots(numbers)
        return slots, known & there

    def export(self) -> Segments:
        """All that is held, as segments, oldest first."""
        lengths, codes, first_steps, numbers = self.table.live()
        sizes = lengths + 1
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = (np.repeat(numbers, sizes) + within) % self.capacity
        sources = np.full(len(lengths), self.source, dtype=np.uint8)
        return Segments(self.schema, self.rows[rows], lengths, codes, first_steps, sources)

    def _portions(self, segments: Segments) -> list[Segments]:
        """The segments in as many parts as the ring must be filled; parts that would not stay are left out."""
        sizes = segments.lengths + 1
        behind = np.cumsum(sizes[::-1])[::-1]
        stays = behind <= self.capacity
        if stays.all():
            return [segments] if len(segments) else []
        return [segments.select(stays)]

    def _write(self, part: Segments) -> None:
        num = len(part.rows)
        sizes = (part.lengths + 1).astype(np.int32)
        left = np.repeat(np.cumsum(sizes, dtype=np.int32), sizes)
        left -= np.arange(1, num + 1, dtype=np.int32)
        spans = self.spans(self.written, num)
        self._forget(spans, num)
        self.table.add(part, self.written)
        offset = 0
        for span in spans:
            taken = slice(offset, offset + span.stop - span.start)
            self.rows[span] = part.rows[taken]
            self.left[span] = left[taken]
            self.queue.push(np.flatnonzero(left[taken]) + span.start)
            offset = taken.stop
        self.rows[-1] = self.rows[0]
        self.written += num

    def _forget(self, spans: list[slice], num: int) -> None:
        """Let go of the transitions whose rows are about to be overwritten: the oldest."""
        if self.written + num > self.capacity:
            self.queue.drop(sum(int(np.count_nonzero(self.left[span])) for span in spans))
            self.table.forget(self.written + num - self.capacity)


def require_room(segments: Segments, capacity: int) -> None:
    """Raises DataError where an episode would not fit into a ring."""
    longest = int(segments.lengths.max(initial=0))
    if longest + 1 > capacity:
        raise DataError(f"an episode of {longest} steps is larger than a shard of {capacity} rows")
