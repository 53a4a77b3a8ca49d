"""Camera frames: what is kept of each episode's, and whether a camera froze or shows nothing."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.cameras import split_cameras
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.images import resize
from phaseb.inspection.columns import MIN_RUN, RUN_RATIO, RUN_SHARE, longest_runs
from phaseb.inspection.data_issue import DataIssue
from phaseb.inspection.recordings import Recording

STILL_SIDE = 96
"""Side of the pictures kept for the page, pixels."""
BLANK = 2.0
"""Standard deviation of the brightness, of 255, below which a picture shows nothing."""
MOVING = 0.2
"""Share of the usual pace at which an episode counts as moving."""


@dataclass(frozen=True)
class FrameTrack:
    """What is kept of one camera over one episode.

    Attributes:
        camera: its name.
        id: of the episode.
        changed: (T,) whether each frame differs from the one before.
        contrast: standard deviation of the brightness of the least contrasted picture looked at.
        still: (S, S, 3) a picture from the middle; None where none was decoded.
    """

    camera: str
    id: str
    changed: NDArray[np.bool_]
    contrast: float
    still: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, episode: Episode, named: Sequence[str] = ()) -> "Iterator[FrameTrack]":
        """A track for each camera of an episode; `named` are those that were read, in their order."""
        for i, (name, frames) in enumerate(split_cameras(episode).items()):
            changed = np.array([(a != b).any() for a, b in itertools.pairwise(frames)], dtype=bool)
            looked = frames[np.linspace(0, len(frames) - 1, 3).astype(int)]
            contrast = min(float(picture.mean(axis=2).std()) for picture in looked)
            camera = named[i] if i < len(named) else name
            yield cls(camera, episode.id, changed, contrast, still(frames[len(frames) // 2]))

    @property
    def longest(self) -> int:
        """Frames of the longest stretch of equal ones."""
        number = np.cumsum(self.changed)[:, None]
        return int(longest_runs(np.concatenate([np.zeros((1, 1)), number]))[0])


def still(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (H, W, C) as (S, S, 3) for the page."""
    small = resize(picture[None], STILL_SIDE)[0]
    return np.ascontiguousarray(np.repeat(small, 3, axis=2) if small.shape[2] == 1 else small[..., :3])


def camera_findings(tracks: Sequence[FrameTrack], recordings: Sequence[Recording]) -> Iterator[DataIssue]:
    """Cameras that froze while the robot moved, that show nothing, or that some episodes lack."""
    moving = _moving(recordings)
    by_camera: dict[str, list[FrameTrack]] = defaultdict(list)
    for track in tracks:
        by_camera[track.camera].append(track)
    for camera, seen in by_camera.items():
        usual = float(np.median([track.longest for track in seen]))
        for track in seen:
            most, rows = track.longest, len(track.changed) + 1
            frozen = most >= MIN_RUN and most > RUN_RATIO * usual and most >= RUN_SHARE * rows
            if frozen and _moves_within(track, moving.get(track.id)):
                yield DataIssue(
                    "frozen",
                    "warning",
                    f"camera {camera} repeats one frame for {most} of {rows}, usually "
                    f"for {usual:g}, while the robot moves",
                    (track.id,),
                )
        blank = tuple(track.id for track in seen if track.contrast < BLANK)
        if blank:
            yield DataIssue("blank", "warning", f"camera {camera} shows an even picture", blank)


def _moving(recordings: Sequence[Recording]) -> Mapping[str, NDArray[np.bool_]]:
    """By episode, (T,) whether the state moves in each step; nothing for episodes without a state."""
    rows = [np.abs(np.diff(one.state, axis=0)) for one in recordings if one.state.shape[1]]
    if not rows:
        return {}
    pace = np.concatenate(rows).mean(axis=0)
    pace[pace == 0] = 1.0
    ids = [one.id for one in recordings if one.state.shape[1]]
    return {name: (step / pace).mean(axis=1) > MOVING for name, step in zip(ids, rows, strict=True)}


def _moves_within(track: FrameTrack, moves: NDArray[np.bool_] | None) -> bool:
    """Whether the robot moves for most of the longest frozen stretch; taken for granted where there is no state."""
    if moves is None or len(moves) != len(track.changed):
        return True
    number = np.concatenate([[0], np.cumsum(track.changed)])
    values, counts = np.unique(number, return_counts=True)
    within = np.flatnonzero(number == values[counts.argmax()])[1:] - 1
    return bool(len(within) and moves[within].mean() > 0.5)
