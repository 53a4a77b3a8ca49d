"""Several sources as one: episodes are taken from each in proportion to its weight, none twice."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.inventory import Inventory, LeftOut
from phaseb.episodes.recorded import FramesAt, RecordedEpisode, Rows
from phaseb.episodes.sources import (
    Entry,
    inventory_of,
    lengths_of_source,
    open_source,
    recorded_of,
    tasks_of_source,
)
from phaseb.episodes.state_columns import check_order, from_tag
from phaseb.episodes.tasks import without_task
from phaseb.errors import DataError
from phaseb.runtime.seeding import derive_seed


class Source:
    """The parts of `episodes.parts`, each read by its own format's source.

    As many episodes are taken as the weights allow without repeating any: with weights 2 and 1, two of the first for
    one of the second until either runs out. Which ones, follows from their ids alone. Ids begin with the number of
    their part; splits are kept where every part carries them.
    """

    def __init__(self, config: EpisodesConfig) -> None:
        self._names = [part.path or part.source for part in config.parts]
        own = [{"source": p.source, "path": p.path, "columns": p.columns, "parts": ()} for p in config.parts]
        self._sources = [open_source(config.model_copy(update=change)) for change in own]
        listed = [list(source.entries()) for source in self._sources]
        for name, entries in zip(self._names, listed, strict=True):
            if not entries:
                raise DataError(f"{name} holds no episodes to mix; take it out of episodes.parts")
        whole = min(len(entries) / part.weight for entries, part in zip(listed, config.parts, strict=True))
        counts = [max(1, int(whole * part.weight + 1e-9)) for part in config.parts]
        self._chosen = [
            (part, index)
            for part, (entries, count) in enumerate(zip(listed, counts, strict=True))
            for index in _drawn(part, entries, count)
        ]
        keep = all(split for entries in listed for _, split in entries)
        self._entries: list[Entry] = [
            (f"{part}-{listed[part][index][0]}", listed[part][index][1] if keep else "") for part, index in self._chosen
        ]
        self._step_s = [part.columns.step_s for part in config.parts]

    def entries(self) -> Sequence[Entry]:
        return self._entries

    def lengths(self) -> Sequence[int] | None:
        known = [lengths_of_source(source) for source in self._sources]
        found = [of[index] for part, index in self._chosen if (of := known[part]) is not None]
        return found if len(found) == len(self._chosen) else None

    def tasks(self) -> Sequence[str] | None:
        named = [tasks_of_source(source) for source in self._sources]
        if not any(named):
            return None
        return ["" if (of := named[part]) is None else of[index] for part, index in self._chosen]

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        return (recorded.episode() for recorded in self.recorded(indices))

    def recorded(self, indices: Sequence[int]) -> Iterator[RecordedEpisode]:
        """The same, row by row, with frames on demand."""
        for part, run in itertools.groupby(indices, key=lambda index: self._chosen[index][0]):
            rows = list(run)
            for index, one in zip(rows, self._of_part(part, [self._chosen[i][1] for i in rows]), strict=True):
                for kind, size in _sizes(one).items():
                    self._check(one, part, kind, size)
                check_order(from_tag(one.tags), from_tag(self._first.tags), self._names[0])
                tags = {**one.tags, "part": self._names[part]}
                yield replace(one, id=self._entries[index][0], tags=tags, frames_at=self._checked_frames(one, part))

    def inventory(self) -> Inventory:
        """What the parts hold, and what each leaves out of all its episodes. Their rows in all are not counted: only
        chosen episodes are read."""
        found = [inventory_of(source) for source in self._sources]
        left = [
            replace(part, what=f"{name}: {part.what}")
            for name, one in zip(self._names, found, strict=True)
            for part in one.left_out
        ]
        total = sum(one.episodes for one in found)
        untaken = total - len(self._chosen) - sum(part.episodes for part in left)
        if untaken:
            left.append(LeftOut("what the weights of episodes.parts do not take", untaken))
        columns = [f"{name}: {column}" for name, one in zip(self._names, found, strict=True) for column in one.columns]
        notes = [f"{name}: {note}" for name, one in zip(self._names, found, strict=True) for note in one.notes]
        return Inventory(total, None, tuple(left), tuple(columns), tuple(notes))

    @cached_property
    def _first(self) -> RecordedEpisode:
        """The episode that all others must be like."""
        part, index = self._chosen[0]
        return next(iter(self._of_part(part, [index])))

    @cached_property
    def _frame_shape(self) -> tuple[int, ...] | None:
        """(H, W, C) of its frames."""
        at = self._first.frames_at
        return None if at is None else at(np.zeros(1, np.int64)).shape[1:]

    def _of_part(self, part: int, indices: Sequence[int]) -> Iterator[RecordedEpisode]:
        """Episodes of a part; what a run wrote says its tasks anew, as they are of all parts."""
        return map(without_task, recorded_of(self._sources[part], indices, self._step_s[part]))

    def _checked_frames(self, one: RecordedEpisode, part: int) -> FramesAt | None:
        """Reads an episode's frames and sees that they are of the first one's shape."""
        read = one.frames_at
        if (read is None) != (self._first.frames_at is None):
            self._check(one, part, "frames", None if read is None else read(np.zeros(1, np.int64)).shape[1:])
        if read is None:
            return None

        def checked(rows: Rows | None) -> NDArray[np.uint8]:
            frames = read(rows)
            self._check(one, part, "frames", frames.shape[1:])
            return frames

        return checked

    def _check(self, one: RecordedEpisode, part: int, kind: str, size: tuple[int, ...] | None) -> None:
        """See that an episode has columns of the kinds and sizes that the first one has."""
        wanted = self._frame_shape if kind == "frames" else _sizes(self._first)[kind]
        if size != wanted:
            raise DataError(
                f"{self._names[part]}: episode {one.id} has {kind} of size {size}, "
                f"{self._names[0]} has {wanted}; map the columns of episodes.parts so that they agree"
            )


def _drawn(part: int, entries: Sequence[Entry], count: int) -> list[int]:
    """`count` positions, chosen by a hash of the ids, in order."""
    ranked = sorted(range(len(entries)), key=lambda i: derive_seed(0, "mixed", part, entries[i][0]))
    return sorted(ranked[:count])


def _sizes(one: RecordedEpisode) -> dict[str, tuple[int, ...] | None]:
    arrays = {"state": one.state, "actions": one.actions}
    return {name: None if array is None else array.shape[1:] for name, array in arrays.items()}
