"""Several sources as one: episodes are taken from each in proportion to its weight, none twice."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.inventory import Inventory, LeftOut
from phaseb.episodes.sources import Entry, inventory_of, lengths_of_source, open_source
from phaseb.episodes.state_columns import check_order, from_tag
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
        self._first: dict[str, Any] | None = None

    def entries(self) -> Sequence[Entry]:
        return self._entries

    def lengths(self) -> Sequence[int] | None:
        known = [lengths_of_source(source) for source in self._sources]
        found = [of[index] for part, index in self._chosen if (of := known[part]) is not None]
        return found if len(found) == len(self._chosen) else None

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        for part, run in itertools.groupby(indices, key=lambda index: self._chosen[index][0]):
            rows = list(run)
            for index, episode in zip(rows, self._sources[part].read([self._chosen[i][1] for i in rows]), strict=True):
                self._check(episode, part)
                yield replace(episode, id=self._entries[index][0], tags={**episode.tags, "part": self._names[part]})

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

    def _check(self, episode: Episode, part: int) -> None:
        """See that all parts' episodes have the same kinds and sizes of columns."""
        if self._first is None:
            number, inner = self._chosen[0]
            (first,) = self._sources[number].read([inner])
            self._first, self._order = _sizes(first), from_tag(first.tags)
        differing = [name for name, size in _sizes(episode).items() if size != self._first[name]]
        if differing:
            name = differing[0]
            raise DataError(
                f"{self._names[part]}: episode {episode.id} has {name} of size {_sizes(episode)[name]}, "
                f"{self._names[0]} has {self._first[name]}; map the columns of episodes.parts so that they agree"
            )
        check_order(from_tag(episode.tags), self._order, self._names[0])


def _drawn(part: int, entries: Sequence[Entry], count: int) -> list[int]:
    """`count` positions, chosen by a hash of the ids, in order."""
    ranked = sorted(range(len(entries)), key=lambda i: derive_seed(0, "mixed", part, entries[i][0]))
    return sorted(ranked[:count])


def _sizes(episode: Episode) -> dict[str, Any]:
    arrays = {"state": episode.state, "frames": episode.frames, "actions": episode.actions}
    return {name: None if array is None else array.shape[1:] for name, array in arrays.items()}
