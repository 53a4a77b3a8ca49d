"""Actions in the environment's units, and the same scaled to [-1, 1]."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phaseb.episodes.episode import Episode
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

SCALE = ("episodes", "action_scale.json")
"""Where a run directory holds the scale of its actions."""

WIDE = 4.0  # times the range recorded: wider bounds say nothing of what actions are
STRAY = 100.0  # times the range of the middle 98 %: what lies farther out is an outlier
MOST_ROWS = 2**16


@dataclass(frozen=True)
class ActionScale:
    """The affine map between [low, high] (each (A,), the environment's units) and [-1, 1].

    An action dimension that never moves (low = high) is 0 when scaled.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def __post_init__(self) -> None:
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        if low.ndim != 1 or low.shape != high.shape or not np.isfinite([low, high]).all() or (low > high).any():
            raise DataError(f"action bounds must be finite vectors with low <= high, got {low} and {high}")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @classmethod
    def of_environment(cls, low: ArrayLike, high: ArrayLike, name: str) -> "ActionScale":
        """An environment's own bounds.

        Raises:
            DataError: where they are infinite, naming the environment.
        """
        if not np.isfinite(np.asarray([low, high], np.float64)).all():
            raise DataError(
                f"environment {name} has infinite action bounds and no episode carries actions, so their range is "
                f"unknown; give episodes with actions, or wrap the environment in finite bounds"
            )
        return cls(np.asarray(low, np.float32), np.asarray(high, np.float32))

    @classmethod
    def fit(cls, episodes: Iterable[Episode]) -> "ActionScale":
        """The range of the actions of some (training) episodes, but for outliers (see `ActionStatistics.range`).

        Raises:
            DataError: where none of them carries actions.
        """
        seen = ActionStatistics()
        for episode in episodes:
            if episode.actions is not None:
                seen.add(episode.actions)
        return seen.range()

    @property
    def size(self) -> int:
        """A, the number of action dimensions."""
        return len(self.low)

    def normalise(self, actions: ArrayLike) -> NDArray[np.float32]:
        """Actions (..., A) of the environment as values in [-1, 1]; what lies outside the range is clipped to it."""
        low, span = self.low.astype(np.float64), self._span()
        scaled = 2 * (np.asarray(actions, np.float64) - low) / np.where(span > 0, span, 1) - 1
        return np.clip(np.where(span > 0, scaled, 0), -1, 1).astype(np.float32)

    def denormalise(self, scaled: ArrayLike) -> NDArray[np.float32]:
        """Values (..., A) in [-1, 1] as actions of the environment."""
        share = (np.clip(np.asarray(scaled, np.float64), -1, 1) + 1) / 2
        actions = (self.low + share * self._span()).astype(np.float32)
        return np.clip(actions, self.low, self.high)

    def to_json(self) -> dict[str, list[float]]:
        return {"low": [float(x) for x in self.low], "high": [float(x) for x in self.high]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ActionScale":
        return cls(np.asarray(value["low"], np.float32), np.asarray(value["high"], np.float32))

    def within(self, low: NDArray[np.float32], high: NDArray[np.float32]) -> "tuple[ActionScale, NDArray[np.bool_]]":
        """The scale of an environment with bounds [low, high] in which these (A,) ranges were recorded.

        Returns:
            the bounds, but where they are infinite or more than WIDE times as wide as what was recorded, what was
            recorded within them; and (A,) true where that is so.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            span = high.astype(np.float64) - low.astype(np.float64)
        wide = ~np.isfinite(span) | (span > WIDE * self._span())
        seen_low, seen_high = np.clip(self.low, low, high), np.clip(self.high, low, high)
        return ActionScale(np.where(wide, seen_low, low), np.where(wide, seen_high, high)), wide

    def _span(self) -> NDArray[np.float64]:
        return self.high.astype(np.float64) - self.low.astype(np.float64)


def read_action_scale(store: Store) -> ActionScale | None:
    """The scale of a run's actions; None where no episode carries actions."""
    value = store.read_json(*SCALE)
    return None if value is None else ActionScale.from_json(value)


class ActionStatistics:
    """The range of actions that pass, and how many of them lie beyond an environment's bounds.

    Args:
        low, high: (A,) the bounds; None where there is no environment.

    Attributes:
        steps, beyond: actions that passed, and those of them with a dimension outside the bounds.
    """

    def __init__(self, low: NDArray[np.float32] | None = None, high: NDArray[np.float32] | None = None) -> None:
        self.low, self.high = low, high
        self.steps = self.beyond = 0
        self._ranges: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._sample: list[NDArray[np.float32]] = []
        self._every, self._held = 1, 0

    @property
    def is_empty(self) -> bool:
        """Whether no training episode carried actions."""
        return self._ranges is None

    def count(self, actions: NDArray[np.float32]) -> None:
        """Compare the actions (T, A) of an episode with the bounds. A rounding to single precision is not beyond."""
        self.steps += len(actions)
        if self.low is not None and self.high is not None and actions.shape[1] == len(self.low):
            least, most = np.nextafter(self.low, np.float32(-np.inf)), np.nextafter(self.high, np.float32(np.inf))
            self.beyond += int(((actions < least) | (actions > most)).any(axis=1).sum())

    def add(self, actions: NDArray[np.float32]) -> None:
        """Take the actions (T, A) of a training episode into the range."""
        low, high = actions.min(axis=0), actions.max(axis=0)
        if self._ranges is not None:
            low, high = np.minimum(self._ranges[0], low), np.maximum(self._ranges[1], high)
        self._ranges = low, high
        self._sample.append(actions[:: self._every].copy())
        self._held += len(self._sample[-1])
        if self._held > MOST_ROWS:
            self._every *= 2
            self._sample = [np.concatenate(self._sample)[::2]]
            self._held = len(self._sample[0])

    def range(self) -> ActionScale:
        """What was recorded, but for outliers: values STRAY times as far out as the middle 98 % are wide.

        Raises:
            DataError: where no training episode carried actions.
        """
        if self._ranges is None:
            raise DataError("no episode carries actions, so their range is unknown")
        low, high = (x.astype(np.float64) for x in self._ranges)
        inner_low, inner_high = np.quantile(np.concatenate(self._sample).astype(np.float64), (0.01, 0.99), axis=0)
        core = inner_high - inner_low
        stray = (core > 0) & (high - low > STRAY * core)
        low = np.where(stray, np.maximum(low, inner_low - core), low)
        high = np.where(stray, np.minimum(high, inner_high + core), high)
        return ActionScale(low.astype(np.float32), high.astype(np.float32))
