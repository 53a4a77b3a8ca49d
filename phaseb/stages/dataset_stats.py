"""What is remembered of every episode of a data set while they pass: a few numbers each, never the episode."""

import math
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.actions import ActionScale, ActionStatistics
from phaseb.episodes.episode import Episode
from phaseb.episodes.state_columns import from_tag
from phaseb.errors import DataError

COUNTED = ("good_units", "errors", "duration_h")
Bounds = tuple[NDArray[np.float32], NDArray[np.float32]]


class Census:
    """Lengths of all episodes by split, and of the training ones economics and the range of actions.

    Attributes:
        lengths: steps of each episode, by split.
        action_sizes: every number of action dimensions that was seen.
        state_columns: name and width of what the first episode's state is made of; empty where it is not known.
        actions: the range of the training episodes' actions, and those of all beyond `bounds` (low, high).
    """

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.lengths = {split: array("l") for split in ("train", "dev", "test")}
        self.action_sizes: set[int] = set()
        self.state_columns: list[tuple[str, int]] = []
        self._metrics = {name: array("d") for name in COUNTED}
        self.actions = ActionStatistics(*(bounds or (None, None)))

    @classmethod
    def of(cls, episodes: Iterable[Episode], bounds: Bounds | None = None) -> "Census":
        seen = cls(bounds)
        for episode in episodes:
            seen.add(episode)
        return seen

    def add(self, episode: Episode) -> None:
        if not any(self.lengths.values()):
            self.state_columns = from_tag(episode.tags)
        self.lengths[episode.split].append(len(episode))
        if episode.actions is not None:
            self.action_sizes.add(episode.actions.shape[1])
            self.actions.count(episode.actions)
        if episode.split != "train":
            return
        for name, values in self._metrics.items():
            values.append(episode.metrics.get(name, math.nan))
        if episode.actions is not None and len(self.action_sizes) == 1:
            self.actions.add(episode.actions)

    def action_range(self) -> ActionScale:
        """The range of the training episodes' actions, but for outliers.

        Raises:
            DataError: where none of them carries actions, or they differ in size.
        """
        if len(self.action_sizes) > 1:
            raise DataError(f"the episodes' actions have {sorted(self.action_sizes)} dimensions; import them apart")
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
