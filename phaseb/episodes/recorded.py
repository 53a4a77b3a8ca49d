"""Episodes as they were recorded, row by row, whose camera frames are read when they are asked for."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.episode import Episode, Split

Rows = NDArray[np.int64]
FramesAt = Callable[[Rows | None], NDArray[np.uint8]]
"""Frames (K, H, W, C) at K rows, in ascending order; all of them for None."""


@dataclass(frozen=True)
class RecordedEpisode:
    """T actions, T + 1 observations and T rewards, of which frames are not read yet.

    Attributes:
        id, rewards, state, actions, terminated, source, split, metrics, tags: as of `Episode`.
        frames_at: reads the frames at some rows; None where no camera is read.
        step_s: length of a row, s; 0 where the data do not say.
        context: errors of reading are raised within it, so that they name the file.
    """

    id: str
    rewards: NDArray[np.float32]
    state: NDArray[np.float32] | NDArray[np.float64] | None = None
    frames_at: FramesAt | None = None
    actions: NDArray[np.float32] | None = None
    terminated: bool = False
    source: Literal["real", "synthetic"] = "real"
    split: Split = ""
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    step_s: float = 0.0
    context: Callable[[], AbstractContextManager[Any]] = nullcontext

    @classmethod
    def of(cls, episode: Episode, step_s: float = 0.0) -> "RecordedEpisode":
        """An episode that is in memory; its recorded hours say how long a row is where `step_s` does not."""
        frames = episode.frames
        at: FramesAt | None = None if frames is None else lambda rows: frames if rows is None else frames[rows]
        hours = episode.metrics.get("duration_h", 0.0)
        known_s = hours * 3600 / len(episode) if np.isfinite(hours) else 0.0
        return cls(
            episode.id,
            episode.rewards,
            episode.state,
            at,
            episode.actions,
            episode.terminated,
            episode.source,
            episode.split,
            dict(episode.metrics),
            dict(episode.tags),
            step_s or known_s,
        )

    def __len__(self) -> int:
        """T."""
        return len(self.rewards)

    def episode(self) -> Episode:
        """All rows.

        Raises:
            DataError: for frames that cannot be read, or values that are not finite.
        """
        with self.context():
            return Episode(
                id=self.id,
                rewards=self.rewards,
                state=self.state,
                frames=None if self.frames_at is None else self.frames_at(None),
                actions=self.actions,
                terminated=self.terminated,
                source=self.source,
                split=self.split,
                metrics=self.metrics,
                tags=self.tags,
            )
