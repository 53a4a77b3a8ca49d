"""Read recordings once: every episode is counted and checked, a sample is kept for the rules."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from phaseb.config.root import Config
from phaseb.episodes.control import control_of_tags
from phaseb.episodes.control_source import ControlSource, OpenRecordings, task_condition
from phaseb.episodes.episode import TASK_TAG, Episode, Split
from phaseb.episodes.recorded import RecordedEpisode
from phaseb.episodes.sources import EpisodeSource, lengths_of_source
from phaseb.episodes.splits import choose_splits
from phaseb.episodes.tasks import Tasks, with_task
from phaseb.errors import DataError, PhasebError
from phaseb.inspection.data_issue import DataIssue, alike
from phaseb.inspection.frames import FrameTrack
from phaseb.inspection.recordings import Recording, state_names
from phaseb.pipeline.dataset_stats import Bounds, DatasetStats
from phaseb.runtime.seeding import derive_seed

MOST_STEPS = 2**18
"""Steps of the sample that rules compare; larger sets are drawn from evenly."""


@dataclass
class Survey:
    """What one pass over some recordings leaves.

    Attributes:
        stats: of all episodes that can be read.
        lengths: by id, steps of all episodes that can be read, in their order.
        refused: errors for episodes that cannot be read, alike ones as one.
        sample: episodes of the most common sizes, without frames.
        tracks: what was seen of the frames of each episode that has any.
        names: of the state's columns.
        tasks: of the episodes that can be read, where they name any.
        step_s: length of a step, s; NaN where the data do not say.
        frame_shape: (H, W, C) of the first frames; None where there are none.
    """

    stats: DatasetStats
    lengths: dict[str, int] = field(default_factory=dict)
    refused: list[DataIssue] = field(default_factory=list)
    sample: list[Recording] = field(default_factory=list)
    tracks: list[FrameTrack] = field(default_factory=list)
    names: tuple[str, ...] = ()
    tasks: list[str] = field(default_factory=list)
    step_s: float = float("nan")
    frame_shape: tuple[int, ...] | None = None

    @property
    def num_steps(self) -> int:
        return sum(self.lengths.values())


def survey(source: EpisodeSource, config: Config, bounds: Bounds | None, steps: OpenRecordings | None = None) -> Survey:
    """Read every episode of a source once, as it was recorded.

    Args:
        source: of recorded rows.
        config: of the run that would use it: splits and seed.
        bounds: of the environment's actions, where there is one.
        steps: the same in steps of `episodes.control_hz`, of which `stats` are then; None: rows are steps.
    """
    coarse = steps.source if steps and isinstance(steps.source, ControlSource) else None
    roles_in_steps = {} if steps is None or coarse is None else dict(zip(coarse.kept, steps.roles, strict=True))
    found, entries = Survey(DatasetStats(bounds)), source.entries()
    tasks, roles, refusal = _roles(source, config)
    if refusal:
        found.refused.append(refusal)
    kept: list[tuple[int, Recording]] = []
    for i, episode in _readable(source, found.refused):
        if not found.lengths:
            found.names, found.frame_shape = state_names(episode), _frame_shape(episode)
            control = control_of_tags(episode.tags)
            hours = episode.metrics.get("duration_h", np.nan)
            found.step_s = 1 / control.hz if control else hours * 3600 / len(episode)
        found.lengths[episode.id] = len(episode)
        found.tasks += [episode.tags[TASK_TAG]] if TASK_TAG in episode.tags else []
        if coarse is None:
            tags = {n: text for n, text in episode.tags.items() if not refusal or n != TASK_TAG}
            found.stats.add(with_task(replace(episode, split=roles[i], tags=tags), tasks))
        elif i in roles_in_steps:
            in_steps = coarse.control.steps_of(RecordedEpisode.of(episode))
            found.stats.add(with_task(replace(in_steps, split=roles_in_steps[i]), tasks))
        found.tracks += FrameTrack.of(episode, config.episodes.columns.images)
        kept.append((derive_seed(config.run.seed, "inspect", entries[i][0]), Recording.of(episode)))
        if sum(len(one) for _, one in kept) > 2 * MOST_STEPS:
            kept = _subsample(kept)
    recordings = [one for _, one in (_subsample(kept) if sum(len(one) for _, one in kept) > MOST_STEPS else kept)]
    found.sample = _of_common_size(recordings, found.refused)
    return found


def _roles(source: EpisodeSource, config: Config) -> tuple[Tasks, Sequence[Split], DataIssue | None]:
    """The tasks that are a condition, and the split of each episode; all train where the splits cannot be made."""
    entries, tasks = source.entries(), Tasks()
    try:
        tasks, named = task_condition(source, config.episodes)
        lengths = lengths_of_source(source)
        return tasks, choose_splits(entries, config.episodes, config.run.seed, lengths, named), None
    except DataError as error:
        return tasks, ["train"] * len(entries), DataIssue("splits", "error", str(error))


def _readable(source: EpisodeSource, refused: list[DataIssue]) -> Iterator[tuple[int, Episode]]:
    """The episodes that can be read, with their numbers; the others are added to `refused`, alike ones as one."""
    entries, i, said = source.entries(), 0, list[tuple[str, str]]()
    while i < len(entries):
        try:
            for episode in source.read(range(i, len(entries))):
                yield i, episode
                i += 1
        except PhasebError as error:
            said.append((entries[i][0], str(error)))
            i += 1
    refused += alike("refused", "error", said)


def _subsample(kept: list[tuple[int, Recording]]) -> list[tuple[int, Recording]]:
    """The episodes of the smallest hashes, up to MOST_STEPS steps, in their order."""
    chosen, steps = set[int](), 0
    for i in sorted(range(len(kept)), key=lambda i: kept[i][0]):
        steps += len(kept[i][1])
        if steps > MOST_STEPS and chosen:
            break
        chosen.add(i)
    return [one for i, one in enumerate(kept) if i in chosen]


def _of_common_size(recordings: Sequence[Recording], refused: list[DataIssue]) -> list[Recording]:
    """The episodes with the most common numbers of columns; the others become an error."""
    sizes = [(one.state.shape[1], one.actions.shape[1]) for one in recordings]
    if len(set(sizes)) <= 1:
        return list(recordings)
    usual = Counter(sizes).most_common(1)[0][0]
    odd = tuple(one.id for one, size in zip(recordings, sizes, strict=True) if size != usual)
    others = ", ".join(f"{d} state and {a} action columns" for d, a in sorted(set(sizes) - {usual}))
    refused.append(
        DataIssue("schema", "error", f"{others} where most have {usual[0]} and {usual[1]}: import them apart", odd)
    )
    return [one for one, size in zip(recordings, sizes, strict=True) if size == usual]


def _frame_shape(episode: Episode) -> tuple[int, ...] | None:
    return None if episode.frames is None else episode.frames.shape[1:]


def lengths_of(found: Survey) -> NDArray[np.int64]:
    """Steps of all episodes that can be read."""
    return np.array(list(found.lengths.values()), dtype=np.int64)
