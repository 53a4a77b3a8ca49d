"""Which transitions of which episodes a ring holds: what makes inserting twice the same as inserting once."""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.replay.segments import Segments

Integers = NDArray[np.int64]


@dataclass
class _Batch:
    """The segments of one write; `first` of them are gone already."""

    numbers: Integers
    lengths: Integers
    codes: Integers
    first_steps: Integers
    first: int = 0


class SegmentTable:
    """Segments in the order of writing, and the intervals of steps held of each episode by its code."""

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()
        self._held: dict[int, tuple[int, ...]] = {}  # code -> (begin, stop, begin, stop, …)
        self._oldest = 0
        self._index: tuple[Integers, Integers, Integers, Integers] | None = None

    def add(self, segments: Segments, number: int) -> None:
        """Note segments of which none is held yet, written from row `number` on."""
        numbers = segments.starts + number
        columns = (segments.lengths.copy(), segments.codes.copy(), segments.first_steps.copy())
        self._batches.append(_Batch(numbers, *columns))
        codes, stops = segments.codes.tolist(), (segments.first_steps + segments.lengths).tolist()
        spans = zip(segments.first_steps.tolist(), stops, strict=True)
        if self._all_new(codes):
            self._held.update(zip(codes, spans, strict=True))
        else:
            for code, span in zip(codes, spans, strict=True):
                self._held[code] = (*self._held.get(code, ()), *span)
        self._index = None

    def forget(self, oldest: int) -> None:
        """Let go of all rows before number `oldest`."""
        self._oldest = oldest
        self._index = None
        while self._batches:
            batch = self._batches[0]
            gone = int(np.searchsorted(batch.numbers + batch.lengths, oldest, side="right"))
            for i in range(batch.first, gone):
                begin = int(batch.first_steps[i])
                self._release(int(batch.codes[i]), begin, begin + int(batch.lengths[i]))
            batch.first = max(batch.first, gone)
            if batch.first < len(batch.numbers):
                self._trim(batch)
                return
            self._batches.popleft()

    def unknown(self, segments: Segments) -> Segments:
        """The segments without the transitions that are held already or come twice among themselves."""
        codes = segments.codes.tolist()
        if self._all_new(codes):
            return segments
        kept: list[tuple[int, int, int]] = []
        seen: dict[int, list[tuple[int, int]]] = {}
        for i, code in enumerate(codes):
            begin = int(segments.first_steps[i])
            stop = begin + int(segments.lengths[i])
            if code not in seen:
                flat = self._held.get(code, ())
                seen[code] = list(zip(flat[::2], flat[1::2], strict=True))
            for low, high in _gaps(begin, stop, seen[code]):
                kept.append((i, low - begin, high - low))
            seen[code].append((begin, stop))
        index, offsets, lengths = np.array(kept, dtype=np.int64).reshape(-1, 3).T
        return segments.cut(index, offsets, lengths)

    def find(self, codes: Integers, steps: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        """The row numbers of transitions by (code, step), and which are known."""
        known_codes, keys, numbers, lengths = self._sorted()
        if not len(keys):
            return np.zeros(len(codes), dtype=np.int64), np.zeros(len(codes), dtype=bool)
        place = np.minimum(np.searchsorted(known_codes, codes), len(known_codes) - 1)
        target = (place << 32) + steps
        at = np.maximum(np.searchsorted(keys, target, side="right") - 1, 0)
        offset = target - keys[at]
        known = (known_codes[place] == codes) & (steps >= 0) & (target >= keys[at]) & (offset < lengths[at])
        return numbers[at] + np.where(known, offset, 0), known

    def live(self) -> tuple[Integers, Integers, Integers, Integers]:
        """(lengths, codes, first steps, row numbers) of all segments held, oldest first."""
        if not self._batches:
            empty = np.empty(0, dtype=np.int64)
            return empty, empty, empty, empty
        columns = [
            np.concatenate([getattr(b, name)[b.first :] for b in self._batches])
            for name in ("lengths", "codes", "first_steps", "numbers")
        ]
        return columns[0], columns[1], columns[2], columns[3]

    def _all_new(self, codes: list[int]) -> bool:
        return self._held.keys().isdisjoint(codes) and len(set(codes)) == len(codes)

    def _trim(self, batch: _Batch) -> None:
        """Shorten the oldest segment where its first rows are gone."""
        i = batch.first
        gone = self._oldest - int(batch.numbers[i])
        if gone <= 0:
            return
        begin = int(batch.first_steps[i])
        self._release(int(batch.codes[i]), begin, begin + gone)
        for column, change in ((batch.numbers, gone), (batch.first_steps, gone), (batch.lengths, -gone)):
            column[i] += change

    def _release(self, code: int, begin: int, stop: int) -> None:
        flat = self._held[code]
        if flat == (begin, stop):
            del self._held[code]
            return
        rest: list[int] = []
        for low, high in zip(flat[::2], flat[1::2], strict=True):
            for gap in _gaps(low, high, [(begin, stop)]):
                rest.extend(gap)
        if rest:
            self._held[code] = tuple(rest)
        else:
            del self._held[code]

    def _sorted(self) -> tuple[Integers, Integers, Integers, Integers]:
        if self._index is None:
            lengths, codes, first_steps, numbers = self.live()
            known, place = np.unique(codes, return_inverse=True)
            keys = (place.astype(np.int64) << 32) + first_steps
            order = np.argsort(keys, kind="stable")
            self._index = known, keys[order], numbers[order], lengths[order]
        return self._index


def _gaps(begin: int, stop: int, taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of [begin, stop) that no interval of `taken` covers."""
    gaps, at = [], begin
    for low, high in sorted(taken):
        if low >= stop or high <= at:
            continue
        if low > at:
            gaps.append((at, low))
        at = max(at, high)
    if at < stop:
        gaps.append((at, stop))
    return gaps
