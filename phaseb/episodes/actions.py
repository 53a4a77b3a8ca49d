"""Actions in the environment's units, and the same scaled to [-1, 1]."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phaseb.episodes.episode import Episode
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

SCALE = ("episodes", "action_scale.json")
"""Where a run directory holds the scale of its actions."""


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
    def fit(cls, episodes: Iterable[Episode]) -> "ActionScale":
        """The range of the actions of some (training) episodes.

        Raises:
            DataError: where none of them carries actions.
        """
        recorded: Sequence[NDArray[np.float32]] = [e.actions for e in episodes if e.actions is not None]
        if not recorded:
            raise DataError("no episode carries actions, so their range is unknown")
        return cls(
            np.min([a.min(axis=0) for a in recorded], axis=0),
            np.max([a.max(axis=0) for a in recorded], axis=0),
        )

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

    def _span(self) -> NDArray[np.float64]:
        return self.high.astype(np.float64) - self.low.astype(np.float64)


def read_action_scale(store: Store) -> ActionScale | None:
    """The scale of a run's actions; None where no episode carries actions."""
    value = store.read_json(*SCALE)
    return None if value is None else ActionScale.from_json(value)
