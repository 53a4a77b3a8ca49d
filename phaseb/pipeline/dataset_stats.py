"""What is remembered of every episode of a data set while they pass: a few numbers each, never the episode."""

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.actions import ActionScale, ActionStatistics
from phaseb.episodes.control import TAG
from phaseb.episodes.control_choice import NEAR
from phaseb.episodes.episode import TASK_TAG, Episode
from phaseb.episodes.inventory import listed
from phaseb.episodes.state_columns import from_tag
from phaseb.episodes.tasks import Tasks, short, tasks_of_tags
from phaseb.errors import DataError

COUNTED = ("good_units", "errors", "duration_h")
Bounds = tuple[NDArray[np.float32], NDArray[np.float32]]
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class DataFacts:
    """What later stages need to know of the episodes before they begin.

    Attributes:
        lengths: by split, the steps of each episode, ascending.
        action_size: A; 0 where no episode carries actions.
        state_size: S; 0 where some episode has no state.
        frame_shape: (H, W, C); None where some episode has no frames, or they were not looked at.
        reward_low, reward_high: least and greatest reward of a training step; NaN where that is not known.
        num_terminated: training episodes that ended by themselves.
        still_columns: numbers of the state's columns that never change in the training episodes.
        environment: `state_size`, `frame_shape` and `action_size` of the environment; None where there is none.
        tasks: of each task of the condition, its episodes by split; empty where there is no condition.
        assumed: whether lengths are what collecting would give at most, not what was seen.
    """

    lengths: Mapping[str, NDArray[np.int64]]
    action_size: int = 0
    state_size: int = 0
    frame_shape: tuple[int, ...] | None = None
    reward_low: float = math.nan
    reward_high: float = math.nan
    num_terminated: int = 0
    still_columns: tuple[int, ...] = ()
    environment: Mapping[str, Any] | None = None
    tasks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    assumed: bool = False

    def count(self, split: str, steps: int = 0) -> int:
        """Episodes of a split that have at least so many steps."""
        return int((self.lengths[split] >= steps).sum())

    def longest(self, *splits: str) -> int:
        """Steps of the longest episode of some splits (all of them where none is named)."""
        return max((int(self.lengths[s].max(initial=0)) for s in splits or SPLITS), default=0)

    @property
    def values_can_be_learned(self) -> bool:
        """Whether returns can differ: rewards do, or episodes of a constant reward end by themselves."""
        if math.isnan(self.reward_low):
            return True
        return self.reward_high > self.reward_low or (self.reward_low != 0 and self.num_terminated > 0)

    def to_json(self) -> dict[str, Any]:
        """Lengths as {steps: number of episodes}, so that a large data set stays a small file."""
        counted = {s: {str(n): c for n, c in sorted(Counter(self.lengths[s].tolist()).items())} for s in SPLITS}
        return {
            "lengths": counted,
            "action_size": self.action_size,
            "state_size": self.state_size,
            "frame_shape": self.frame_shape,
            "reward_low": self.reward_low,
            "reward_high": self.reward_high,
            "num_terminated": self.num_terminated,
            "still_columns": self.still_columns,
            "environment": self.environment,
            "tasks": {task: dict(counts) for task, counts in self.tasks.items()},
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "DataFacts":
        lengths = {
            split: np.repeat(np.array([int(n) for n in counts], dtype=np.int64), list(counts.values()))
            for split, counts in tree["lengths"].items()
        }
        low, high = (math.nan if tree[name] is None else float(tree[name]) for name in ("reward_low", "reward_high"))
        shown = tree["environment"]
        return cls(
            lengths,
            int(tree["action_size"]),
            int(tree["state_size"]),
            _shape(tree["frame_shape"]),
            low,
            high,
            int(tree["num_terminated"]),
            tuple(tree["still_columns"]),
            shown and shown | {"frame_shape": _shape(shown["frame_shape"])},
            tree.get("tasks", {}),
        )


class _Ranges:
    """Least and greatest value of each column of some states, and how exact their type is."""

    def __init__(self) -> None:
        self._low: NDArray[np.float64] | None = None
        self._high: NDArray[np.float64] | None = None
        self._precision = 0.0

    def add(self, state: NDArray[np.floating]) -> None:
        low, high = state.min(axis=0).astype(np.float64), state.max(axis=0).astype(np.float64)
        self._low = low if self._low is None else np.minimum(self._low, low)
        self._high = high if self._high is None else np.maximum(self._high, high)
        self._precision = max(self._precision, float(np.finfo(state.dtype).eps))

    def still(self) -> tuple[int, ...]:
        """The columns that are constant, as `is_constant` has it."""
        if self._low is None or self._high is None:
            return ()
        size = np.maximum(np.abs(self._low), np.abs(self._high))
        return tuple(np.flatnonzero(self._high - self._low <= self._precision * size).tolist())


def _print(*parts: NDArray[np.floating] | None) -> int:
    """A number that equal episodes share, of their rows."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(b"" if part is None else np.ascontiguousarray(part).data)
    return int.from_bytes(digest.digest(), "little")


def _shape(sides: Any) -> tuple[int, ...] | None:
    return None if sides is None else tuple(sides)


class DatasetStats:
    """Lengths of all episodes by split, and of the training ones economics and the range of actions.

    Attributes:
        lengths: steps of each episode, by split.
        state_columns: name and width of what the first episode's state is made of; empty where it is not known.
        actions: the range of the training episodes' actions, and those of all beyond `bounds` (low, high).
    """

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.lengths = {split: array("l") for split in SPLITS}
        self._first_of_size: dict[int, str] = {}
        self.state_columns: list[tuple[str, int]] = []
        self._metrics = {name: array("d") for name in COUNTED}
        self._control: str | None = None
        self._condition: Tasks = ()
        self._tasks: Counter[tuple[str, str]] = Counter()
        self._num_synthetic = 0
        self._prints, self._print_splits = array("Q"), array("b")
        self._rates: tuple[tuple[float, str], tuple[float, str]] | None = None
        self.actions = ActionStatistics(*(bounds or (None, None)))
        self._state_sizes: dict[int, str] = {}
        self._frame_shapes: dict[tuple[int, ...] | None, str] = {}
        self._states = _Ranges()
        self._reward_low, self._reward_high, self._num_terminated = math.inf, -math.inf, 0

    @property
    def action_sizes(self) -> set[int]:
        """Every number of action dimensions that was seen."""
        return set(self._first_of_size)

    def check_sizes(self) -> None:
        """See that all episodes have states, actions and frames of one size; some may have none.

        Raises:
            DataError: naming the sizes, each with the first episode of it.
        """
        for what, seen in (("states", self._state_sizes), ("actions", self._first_of_size)):
            sizes = [f"{size} ({name})" for size, name in seen.items() if size]
            if len(sizes) > 1:
                raise DataError(f"the episodes' {what} have {listed(sizes)} dimensions; import them apart")
        shapes = [f"{'x'.join(map(str, shape))} ({name})" for shape, name in self._frame_shapes.items() if shape]
        if len(shapes) > 1:
            raise DataError(
                f"the episodes' frames are {listed(shapes)}; set episodes.columns.image_size, or import them apart"
            )

    @classmethod
    def of(cls, episodes: Iterable[Episode], bounds: Bounds | None = None) -> "DatasetStats":
        seen = cls(bounds)
        for episode in episodes:
            seen.add(episode)
        return seen

    def add(self, episode: Episode) -> None:
        if not any(self.lengths.values()):
            self.state_columns, self._control = from_tag(episode.tags), episode.tags.get(TAG)
            self._condition = tasks_of_tags(episode.tags)
        if episode.tags.get(TAG) != self._control:
            raise DataError(
                f"episode {episode.id} has steps of other rows (episodes.control_hz) than the episodes before: read "
                "the recordings themselves, or episodes of one run"
            )
        if tasks_of_tags(episode.tags) != self._condition:
            own, others = (listed(tasks) or "no task" for tasks in (tasks_of_tags(episode.tags), self._condition))
            raise DataError(
                f"the state of episode {episode.id} says one of {own}, those before one of {others}: read the "
                "recordings themselves, episodes of one run, or those of several with episodes.source=mixed"
            )
        self._num_synthetic += episode.source == "synthetic"
        if episode.state is not None:
            self._prints.append(_print(episode.state, episode.actions, episode.rewards))
            self._print_splits.append(SPLITS.index(episode.split))
        self._count_task(episode)
        self._see_rate(episode)
        self.lengths[episode.split].append(len(episode))
        if episode.actions is not None:
            self._first_of_size.setdefault(episode.actions.shape[1], episode.id)
            self.actions.count(episode.actions)
        self._state_sizes.setdefault(0 if episode.state is None else episode.state.shape[1], episode.id)
        shape = episode.unread_frames if episode.frames is None else episode.frames.shape[1:]
        self._frame_shapes.setdefault(shape, episode.id)
        if episode.split != "train":
            return
        self._reward_low = min(self._reward_low, float(episode.rewards.min()))
        self._reward_high = max(self._reward_high, float(episode.rewards.max()))
        self._num_terminated += bool(episode.terminated)
        if episode.state is not None and len(self._state_sizes) == 1:
            self._states.add(episode.state)
        for name, values in self._metrics.items():
            values.append(episode.metrics.get(name, math.nan))
        if episode.actions is not None and len(self.action_sizes) == 1:
            self.actions.add(episode.actions)

    def _count_task(self, episode: Episode) -> None:
        task = episode.tags.get(TASK_TAG, "")
        others = sorted({name for name, _ in self._tasks} - {"", task}) if task and not self._condition else []
        if others:
            raise DataError(
                f"episode {episode.id} has the task '{short(task)}', others '{short(others[0])}', and no state says "
                "which: a source that has entries() needs tasks() too"
            )
        self._tasks[task, episode.split] += 1

    def _see_rate(self, episode: Episode) -> None:
        seconds = episode.metrics.get("duration_h", math.nan) * 3600
        if TAG not in episode.tags and seconds > 0:  # a last step of control may be shorter
            rate = len(episode) / seconds, episode.id
            slowest, fastest = self._rates or (rate, rate)
            self._rates = min(slowest, rate), max(fastest, rate)

    def notices(self) -> list[str]:
        """What a person ought to know of all episodes together, a sentence each."""
        found = [*self._repeats()]
        if self._num_synthetic:
            found.append(
                f"{self._num_synthetic} episodes are synthetic (is_synthetic), and train and judge here like recorded "
                "ones: export with --only real to leave them out"
            )
        if self._rates and self._rates[1][0] > self._rates[0][0] * (1 + NEAR):
            (slow, slow_id), (fast, fast_id) = self._rates
            found.append(
                f"a step is not as long in all episodes: {slow_id} was recorded at {slow:.4g} Hz, {fast_id} at "
                f"{fast:.4g} Hz; import them apart, or record all at one rate"
            )
        if not self.actions.is_empty and len(self.action_sizes) == 1:
            span = self.actions.range()
            still = [str(i) for i in np.flatnonzero(span.low == span.high).tolist()]
            if still:
                found.append(
                    f"action dimensions {listed(still)} of {span.size} never change in the training episodes: nothing "
                    "can be learned of them"
                )
        named = Counter[str]()
        for (task, _), count in self._tasks.items():
            named[task] += count
        if len(named) == 2 and named[""]:
            (task,) = set(named) - {""}
            found.append(
                f"{named['']} episodes name no task, {named[task]} the task '{short(task)}': all count as of one; give "
                "every episode a task if they are of several"
            )
        return found

    def _repeats(self) -> Iterator[str]:
        """A sentence on episodes that are equal to others."""
        _, first, number = np.unique(np.asarray(self._prints), return_index=True, return_inverse=True)
        splits = np.asarray(self._print_splits)
        apart = int((splits != splits[first[number]]).sum()) if len(splits) else 0
        if repeats := len(splits) - len(first):
            yield (
                f"{repeats} episodes repeat others, {apart} of them in another split, so that they judge what they "
                "taught: keep one of each (phaseb inspect names them)"
            )

    def facts(self) -> DataFacts:
        """What later stages need to know."""
        known = math.isfinite(self._reward_low)
        shape = next(iter(self._frame_shapes)) if len(self._frame_shapes) == 1 else None
        return DataFacts(
            {split: np.sort(np.array(lengths, dtype=np.int64)) for split, lengths in self.lengths.items()},
            max(self.action_sizes, default=0),
            min(self._state_sizes, default=0),
            shape,
            self._reward_low if known else math.nan,
            self._reward_high if known else math.nan,
            self._num_terminated,
            self._states.still() if len(self._state_sizes) == 1 else (),
            tasks={task: {split: self._tasks[task, split] for split in SPLITS} for task in self._condition},
        )

    def action_range(self) -> ActionScale:
        """The range of the training episodes' actions, but for outliers.

        Raises:
            DataError: where none of them carries actions, or they differ in size.
        """
        self.check_sizes()
        return self.actions.range()

    def economics(self) -> dict[str, Any]:
        """Counts of all episodes, and what the training ones made."""

        def total(name: str) -> float:
            return float(np.sum(np.asarray(self._metrics[name])))

        attempts, hours = total("good_units") + total("errors"), total("duration_h")
        return {
            "episodes": sum(len(lengths) for lengths in self.lengths.values()),
            "steps": sum(sum(lengths) for lengths in self.lengths.values()),
            **{f"num_{split}": len(lengths) for split, lengths in self.lengths.items()},
            "mpl": total("good_units") / hours if hours > 0 else math.nan,
            "error_rate": total("errors") / attempts if attempts > 0 else math.nan,
        }
