"""One recorded attempt, checked when it is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phaseb.errors import DataError

Split = Literal["", "train", "dev", "test"]
TASK_TAG = "task"
"""The tag that names an episode's task."""
METRICS = ("mpl", "error_rate", "energy_wh", "energy_wh_per_unit", "duration_h", "good_units", "errors")


@dataclass(frozen=True)
class EpisodeRows:
    """All of an episode but its frames: `T` actions, `T+1` observations, `T` rewards.

    Attributes:
        id: unique in its data set.
        state: (T+1, D) float32, or float64 where single precision cannot hold it; None where there are only frames.
        actions: (T, A) float32 in the environment's own units, or None (video without actions).
        rewards: (T,) float32.
        terminated: whether the last step ended the task (a value of zero follows); a time limit is not one.
        source: where it comes from.
        split: the role it was given before anything was fitted; "" before that.
        metrics: economics of the episode by the names in METRICS; absent or NaN where unknown. `duration_h` is
            simulated or recorded hours, so rates over episodes are ratios of sums.
        tags: free text by name (the operator, the file it was read from, the task).
    """

    id: str
    rewards: NDArray[np.float32]
    state: NDArray[np.float32] | NDArray[np.float64] | None = None
    actions: NDArray[np.float32] | None = None
    terminated: bool = False
    source: Literal["real", "synthetic"] = "real"
    split: Split = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of actions."""
        return len(self.rewards)

    def rows(self) -> dict[str, Any]:
        """These fields by name."""
        return {one.name: getattr(self, one.name) for one in fields(EpisodeRows)}


@dataclass(frozen=True)
class Episode(EpisodeRows):
    """An episode in memory.

    Attributes:
        frames: (T+1, H, W, C) uint8, or None where it has a state only.
        unread_frames: (H, W, C) of frames that it has and that were not read; only then may it show neither.
    """

    frames: NDArray[np.uint8] | None = None
    unread_frames: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        steps = len(self)
        if steps < 1:
            raise DataError(f"episode {self.id} has no steps; leave it out")
        if self.state is None and self.frames is None and self.unread_frames is None:
            raise DataError(f"episode {self.id} has neither state nor frames; record either")
        _check(self.id, "state", self.state, steps + 1, 2, np.float32, np.float64)
        _check(self.id, "frames", self.frames, steps + 1, 4, np.uint8)
        _check(self.id, "actions", self.actions, steps, 2, np.float32)
        _check(self.id, "rewards", self.rewards, steps, 1, np.float32)


def _check(episode: str, name: str, array: NDArray[np.generic] | None, rows: int, ndim: int, *dtypes: type) -> None:
    if array is None:
        return
    if array.dtype not in dtypes or array.ndim != ndim or len(array) != rows or 0 in array.shape:
        wanted = f"{rows} rows, {ndim} dimensions, {np.dtype(dtypes[0]).name}"
        raise DataError(f"episode {episode}: {name} is {array.dtype.name}{array.shape}, wanted {wanted}")
    check_finite(episode, name, array)


def check_finite(episode: str, name: str, array: NDArray[np.generic] | None) -> None:
    """Refuse NaN and Inf.

    Raises:
        DataError: naming the episode, the array and the first place.
    """
    if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        hint = " (numbers beyond 3.4e38 count as Inf)" if np.isinf(array[where]) else ""
        raise DataError(f"episode {episode}: {name} has NaN or Inf, first at {where}; clean or drop the episode{hint}")
