"""A source whose steps are several recorded rows each (`episodes.control_hz`), and how it is opened with its splits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from phaseb.config.data import IMPORTED, EpisodesConfig
from phaseb.episodes.control import Control, control_of_tags
from phaseb.episodes.control_choice import NEAR, choose_action, describe, rows_of_step
from phaseb.episodes.episode import Episode, Split
from phaseb.episodes.inventory import Inventory, LeftOut
from phaseb.episodes.recorded import RecordedEpisode
from phaseb.episodes.sources import (
    Entry,
    EpisodeSource,
    inventory_of,
    lengths_of_source,
    open_source,
    recorded_of,
    tasks_of_source,
)
from phaseb.episodes.splits import choose_splits
from phaseb.episodes.tasks import Tasks, tasks_among, tasks_of_tags, with_task
from phaseb.errors import ConfigError, DataError

RECORDED_ROWS = frozenset(IMPORTED) - {"parquet"}
"""Formats that hold rows as they were recorded; others may hold steps that phaseb wrote."""
MOST_EPISODES = 64
"""Training episodes that decide what an action is, spread evenly over all of them."""


@dataclass(frozen=True)
class OpenRecordings:
    """A source with the split of each of its episodes.

    Attributes:
        source: its steps are those of `control`.
        roles: a split for each of its entries.
        control: how its steps are made of recorded rows, here or before they were written; None where they are rows.
        tasks: the condition that its episodes have, here or before they were written (see `tasks.with_task`).
    """

    source: EpisodeSource
    roles: list[Split]
    control: Control | None = None
    tasks: Tasks = ()

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        """The episodes at some positions of the source's entries, with their splits and tasks."""
        for i, episode in zip(indices, self.source.read(indices), strict=True):
            yield with_task(replace(episode, split=self.roles[i]), self.tasks)


@dataclass(frozen=True)
class RowCounts:
    """What one reading of all rows, without frames, finds.

    Attributes:
        recorded_hz: rows a second of the first episode; the others' are within NEAR of it.
        kept: positions of the episodes that have a step.
        steps: of each of them.
        rows: recorded rows that these steps hold.
        left_out: rows that no step holds.
    """

    recorded_hz: float
    kept: tuple[int, ...]
    steps: tuple[int, ...]
    rows: int
    left_out: tuple[LeftOut, ...]


class ControlSource:
    """The steps of another source's episodes; frames are read where steps begin, and nowhere else.

    Args:
        inner: the source of recorded rows.
        step_s: length of a row where the configuration names it, s.
        control: how steps are made of rows.
        kept: positions of the inner source's episodes that have a step.
        counts, note: what was found and decided, for those who ask for lengths or an inventory.
    """

    def __init__(
        self,
        inner: EpisodeSource,
        step_s: float,
        control: Control,
        kept: Sequence[int],
        counts: RowCounts | None = None,
        note: str = "",
    ) -> None:
        self._inner, self._step_s, self._counts, self._note = inner, step_s, counts, note
        self.control, self.kept = control, kept

    def entries(self) -> Sequence[Entry]:
        listed = self._inner.entries()
        return [listed[i] for i in self.kept]

    def lengths(self) -> Sequence[int] | None:
        return None if self._counts is None else self._counts.steps

    def tasks(self) -> Sequence[str] | None:
        named = tasks_of_source(self._inner)
        return None if named is None else [named[i] for i in self.kept]

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        return map(self.control.steps_of, recorded_of(self._inner, [self.kept[i] for i in indices], self._step_s))

    def inventory(self) -> Inventory:
        """What the inner source holds and leaves out, and what of it is part of no step."""
        found, counts = inventory_of(self._inner), self._counts
        if counts is None:
            return found
        return replace(
            found,
            left_out=(*found.left_out, *counts.left_out),
            notes=(*found.notes, self._note),
            shared_rows=counts.rows - sum(counts.steps),
        )


def open_recordings(config: EpisodesConfig, seed: int, known: Control | None = None) -> OpenRecordings:
    """The recordings that a configuration names, with their splits, in steps of `episodes.control_hz`.

    What an action is, is decided from training episodes (see `choose_action`), unless an earlier import decided.

    Args:
        config: of the episodes.
        seed: of the splits.
        known: what an earlier import of the same run decided.

    Raises:
        ConfigError: where no rate is known to start from, or a higher one was recorded than asked for.
        DataError: where episodes differ in their rate, or none has a step.
    """
    source = open_source(config)
    asked_hz, made = config.control_hz, steps_made_before(source, config)
    if asked_hz is None or made is not None:
        tasks, named = task_condition(source, config)
        roles = choose_splits(source.entries(), config, seed, lengths_of_source(source), named)
        return OpenRecordings(source, roles, made, tasks)
    counts, listed = count_rows(source, config), source.entries()
    tasks, named = task_condition(source, config)
    known_tasks = named and [named[i] for i in counts.kept]
    roles = choose_splits([listed[i] for i in counts.kept], config, seed, counts.steps, known_tasks)
    train = [i for i, role in zip(counts.kept, roles, strict=True) if role == "train"]
    decided = known if known is not None and known.asked_hz == asked_hz else None
    opened = in_steps(source, config, counts, train, decided)
    return OpenRecordings(opened, roles, opened.control, tasks)


def open_in_steps(config: EpisodesConfig, known: Control | None) -> EpisodeSource:
    """Recordings without splits, in steps of `episodes.control_hz`; where nothing is known, all of them decide.

    Raises:
        ConfigError, DataError: as `open_recordings`.
    """
    source = open_source(config)
    if config.control_hz is None or steps_made_before(source, config) is not None:
        return source
    counts = count_rows(source, config)
    return in_steps(source, config, counts, counts.kept, known)


def steps_made_before(source: EpisodeSource, config: EpisodesConfig) -> Control | None:
    """How a source's steps were made of rows before they were written; None where they are rows as recorded.

    Raises:
        ConfigError: where that was done for another `episodes.control_hz`.
    """
    if config.source in RECORDED_ROWS or not len(source.entries()):
        return None
    control = control_of_tags(next(iter(recorded_of(source, [0]))).tags)
    if control is not None and config.control_hz not in (None, control.asked_hz):
        raise ConfigError(
            f"{config.path or config.source} holds steps of {control.hz:.4g} Hz, made with episodes.control_hz="
            f"{control.asked_hz:g}: set that, or read the recordings themselves"
        )
    return control


def task_condition(source: EpisodeSource, config: EpisodesConfig) -> tuple[Tasks, Sequence[str] | None]:
    """The tasks that are a condition, or were one before they were written, and the task of each entry.

    The second is None where there is no condition.

    Raises:
        DataError: where some episodes name one of several tasks and others none.
    """
    named = tasks_of_source(source)
    if config.source not in RECORDED_ROWS and len(source.entries()):
        before = tasks_of_tags(next(iter(recorded_of(source, [0]))).tags)
        if before:
            return before, named
    if named is None:
        return (), None
    tasks = tasks_among([(name, task) for (name, _), task in zip(source.entries(), named, strict=True)])
    return tasks, named if tasks else None


def in_steps(
    source: EpisodeSource, config: EpisodesConfig, counts: RowCounts, train: Sequence[int], known: Control | None
) -> ControlSource:
    """A source in steps of `episodes.control_hz`.

    Args:
        source: of recorded rows.
        config: of the episodes; `control_hz` is set.
        counts: of the source.
        train: positions of the training episodes, of which some decide what an action is.
        known: what was decided before; None: decide.

    Raises:
        ConfigError: where the rate asked for is above the recorded one.
        DataError: where an earlier import made steps of another number of rows, or actions differ in size.
    """
    assert config.control_hz is not None
    step_s, rows = config.columns.step_s, rows_of_step(config.control_hz, counts.recorded_hz)
    if known is None:
        chosen = [train[i] for i in np.unique(np.linspace(0, len(train) - 1, MOST_EPISODES).astype(int)).tolist()]
        actions = [one.actions for one in recorded_of(source, chosen, step_s) if one.actions is not None]
        if len(sizes := {one.shape[1] for one in actions}) > 1:
            raise DataError(f"the episodes' actions have {sorted(sizes)} dimensions; import them apart")
        control = choose_action(config.control_hz, counts.recorded_hz, actions)
    elif known.rows == rows:
        control = known
    else:
        raise DataError(
            f"{config.path or config.source} was recorded at {counts.recorded_hz:.4g} Hz, so a step is {rows} rows, in "
            f"the run's earlier import {known.rows} of {known.recorded_hz:.4g} Hz: choose another run.dir"
        )
    return ControlSource(source, step_s, control, counts.kept, counts, describe(control, known is None))


def count_rows(source: EpisodeSource, config: EpisodesConfig) -> RowCounts:
    """Read every episode's rows, but no frames: how many steps each has, and what is left out.

    Raises:
        ConfigError: where an episode does not say how long a row is, or the rate asked for is above the recorded one.
        DataError: where episodes differ in their rate, or none has a step.
    """
    assert config.control_hz is not None
    where, asked_hz, first_hz, first = config.path or config.source, config.control_hz, 0.0, ""
    kept, steps, taken = list[int](), list[int](), 0
    short, behind = _Rest(), _Rest()
    entries = source.entries()
    for i, one in enumerate(recorded_of(source, range(len(entries)), config.columns.step_s)):
        if not one.step_s > 0:
            raise ConfigError(
                f"{where}: episode {one.id} does not say how long a row is, so episodes.control_hz={asked_hz:g} has no "
                "rate to start from: set episodes.columns.step_s"
            )
        if not first_hz:
            first_hz, first = 1 / one.step_s, one.id
            control = Control(asked_hz, first_hz, rows_of_step(asked_hz, first_hz), "repeat")
        if abs(1 / one.step_s / first_hz - 1) > NEAR:
            raise DataError(
                f"{where}: episode {one.id} was recorded at {1 / one.step_s:.4g} Hz, {first} at {first_hz:.4g} Hz: "
                "episodes.control_hz needs one rate; import them apart"
            )
        number, rows = control.num_steps(len(one), one.terminated), control.num_rows_taken(len(one), one.terminated)
        taken += rows
        (behind if number else short).add(one, rows)
        if number:
            kept.append(i)
            steps.append(number)
    if not entries:
        raise DataError(f"{where} holds no episodes; record some, or set another episodes.path")
    if not kept:
        raise DataError(
            f"{where} holds no episode of {control.rows} rows, a step of episodes.control_hz={asked_hz:g}: set it "
            "higher, or record longer episodes"
        )
    left = (
        short.left_out(f"episodes of fewer than {control.rows} rows, so of no step", whole=True),
        behind.left_out(f"rows behind the last whole step of {control.rows} rows, at a time limit"),
    )
    return RowCounts(first_hz, tuple(kept), tuple(steps), taken, tuple(one for one in left if one is not None))


class _Rest:
    """Rows that no step holds, counted."""

    def __init__(self) -> None:
        self._episodes = self._rows = 0
        self._reward = 0.0

    def add(self, one: RecordedEpisode, taken: int) -> None:
        """Count the rows of an episode behind those that were taken."""
        self._episodes += 1
        self._rows += len(one) - taken
        self._reward += float(one.rewards[taken:].sum(dtype=np.float64))

    def left_out(self, what: str, whole: bool = False) -> LeftOut | None:
        """What was counted, of whole episodes or of parts of some; None where nothing was."""
        if not self._rows:
            return None
        return LeftOut(what, self._episodes if whole else 0, self._rows, self._reward)
