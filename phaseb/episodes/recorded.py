"""Episodes as they were recorded, row by row, whose camera frames are read when they are asked for."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.episode import Episode, EpisodeRows

Rows = NDArray[np.int64]
FramesAt = Callable[[Rows | None], NDArray[np.uint8]]
"""Frames (K, H, W, C) at K rows, in ascending order; all of them for None."""


@dataclass(frozen=True)
class RecordedEpisode(EpisodeRows):
    """An episode whose frames are not read yet.

    Attributes:
        frames_at: reads the frames at some rows; None where no camera is read.
        step_s: length of a row, s; 0 where the data do not say.
        context: errors of reading are raised within it, so that they name the file.
    """

    frames_at: FramesAt | None = None
    step_s: float = 0.0
    context: Callable[[], AbstractContextManager[Any]] = nullcontext

    @classmethod
    def of(cls, episode: Episode, step_s: float = 0.0) -> "RecordedEpisode":
        """An episode that is in memory; its recorded hours say how long a row is where `step_s` does not."""
        frames = episode.frames
        at: FramesAt | None = None if frames is None else lambda rows: frames if rows is None else frames[rows]
        hours = episode.metrics.get("duration_h", 0.0)
        known_s = hours * 3600 / len(episode) if np.isfinite(hours) else 0.0
        return cls(**episode.rows(), frames_at=at, step_s=step_s or known_s)

    def episode(self) -> Episode:
        """All rows.

        Raises:
            DataError: for frames that cannot be read, or values that are not finite.
        """
        with self.context():
            return Episode(**self.rows(), frames=None if self.frames_at is None else self.frames_at(None))
