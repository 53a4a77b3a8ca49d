"""The columns of one LeRobot episode: its Parquet rows, its cameras' videos, and whether their times are right."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phaseb.episodes.columns import whole_column
from phaseb.episodes.formats.episode_builder import RecordedVideo
from phaseb.episodes.recorded import Rows
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

TOLERANCE = 0.1
"""Of a step, by which a row's or a frame's time may be off."""
SLOW = 1.2
"""Rows a frame above which a camera counts as slower than the rows."""
_DEPTH = ("video.is_depth_map", "is_depth_map")


@dataclass(frozen=True)
class VideoSpan:
    """Where the frames of one camera over one episode lie.

    Attributes:
        store, name: the file.
        start_s: time of the first frame in it, s.
        num_frames: rows of the episode.
        fps: frames a second.
    """

    store: Store
    name: str
    start_s: float
    num_frames: int
    fps: float


class Cameras(Protocol):
    """What decodes the video of a camera over one episode."""

    features: Mapping[str, Any]

    def frames(self, camera: str, row: Mapping[str, Any], first_s: float, kept: Rows | None) -> NDArray[np.uint8]: ...


class EpisodeRows(Mapping[str, Any]):
    """Columns by name, read when they are asked for; a camera's video is decoded when its frames are.

    Args:
        cameras: the data set.
        row: of the episode in `meta/episodes`.
        table: its rows.
        fps: rows a second.

    Raises:
        DataError: where rows are not in order, or not a step apart.
    """

    def __init__(self, cameras: Cameras, row: Mapping[str, Any], table: pa.Table, fps: float) -> None:
        self._cameras, self._row, self._table, self._fps = cameras, row, table, fps
        self._names = [*table.column_names, *(n for n, feature in cameras.features.items() if is_video(feature))]
        self._first_s = _check_times(table, fps)

    def __getitem__(self, name: str) -> Any:
        if is_video(self._cameras.features.get(name, {})):
            return RecordedVideo(
                self._table.num_rows, lambda kept: self._cameras.frames(name, self._row, self._first_s, kept)
            )
        if name not in self._table.column_names:  # of the whole episode
            return np.asarray(self._row[name])
        array = whole_column(self._table[name])
        if pa.types.is_struct(array.type):  # an image kept as a file within the row
            return self._pictures(name, array.to_pylist())
        if array.null_count:
            raise DataError(f"column {name!r} has {array.null_count} empty rows; fill or drop them")
        if pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
            return np.array(array.to_pylist())
        return np.asarray(array.to_numpy(zero_copy_only=False))

    def _pictures(self, camera: str, cells: Sequence[Mapping[str, Any] | None]) -> NDArray[Any]:
        """The files of a camera's pictures, which lie within the rows."""
        blobs = np.empty(len(cells), object)
        for i, cell in enumerate(cells):
            blobs[i] = cell.get("bytes") if cell else None
            if blobs[i] is not None:
                continue
            if cell and cell.get("path"):
                raise DataError(
                    f"camera {camera!r} keeps pictures in files of their own, which are not read: write the "
                    "data set with videos or pictures within the rows"
                )
            raise DataError(
                f"camera {camera!r} has no picture in row {i}, at {i / self._fps:.3f} s: record it again, or leave the "
                "episode out"
            )
        return blobs

    def __contains__(self, name: object) -> bool:
        return name in self._names or name in self._row

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def is_video(feature: Mapping[str, Any]) -> bool:
    """Whether a feature is kept as videos."""
    return feature.get("dtype") == "video"


def is_slow(rows_per_frame: float) -> bool:
    """Whether a camera gives clearly fewer frames than there are rows."""
    return rows_per_frame > SLOW


def rows_held(rows_per_frame: float) -> int:
    """Rows over which a picture is kept: those of a slow camera until its next one; longer gaps stay unseen."""
    return math.ceil(rows_per_frame + TOLERANCE) if is_slow(rows_per_frame) else 1


def entry_names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """What the numbers of a vector are called in `meta/info.json`; empty where it does not say."""
    names: Any = feature.get("names")
    while isinstance(names, dict) and len(names) == 1:
        (names,) = names.values()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def picture_size(name: str, feature: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of a camera's pictures as `meta/info.json` says; None where it does not.

    Raises:
        DataError: for a depth camera.
    """
    info = {**feature, **(feature.get("info") or {}), **(feature.get("video_info") or {})}
    if any(info.get(key) for key in _DEPTH):
        raise DataError(
            f"camera {name!r} records depth, which is not read as a picture: choose another episodes.columns.images"
        )
    shape, names = list(feature.get("shape") or ()), feature.get("names")
    if len(shape) != 3:
        return None
    given = [str(part) for part in names] if isinstance(names, list) and len(names) == 3 else []
    channels = [i for i, part in enumerate(given) if part.startswith("channel")] or [2 if shape[2] in (1, 3, 4) else 0]
    height, width = (int(side) for i, side in enumerate(shape) if i != channels[0])
    return height, width


def _check_times(table: pa.Table, fps: float) -> float:
    """The time of the first row, s."""
    steps = np.arange(table.num_rows)
    if "frame_index" in table.column_names:
        index = table["frame_index"].to_numpy()
        at = int(np.argmax(index != steps))
        if index[at] != at:
            raise DataError(f"has frame_index {index[at]} in row {at}: rows are lost or not in order; write it again")
    if "timestamp" not in table.column_names:
        return 0.0
    times = table["timestamp"].to_numpy().astype(np.float64).reshape(-1)
    if not np.isfinite(times).all():
        at = int(np.argmin(np.isfinite(times)))
        raise DataError(f"has no time in row {at}, but {times[at]:g}: write its timestamps, or leave the episode out")
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        at = int(back[0]) + 1
        raise DataError(
            f"has times that do not increase: row {at} is at {times[at]:.4g} s, the row before at "
            f"{times[at - 1]:.4g} s; put the rows in order, or record it again"
        )
    late = np.abs((times - times[0]) * fps - steps)
    if not late.max() <= TOLERANCE:
        at = int(np.argmax(~(late <= TOLERANCE)))
        raise DataError(
            f"has row {at} at {times[at] - times[0]:.4g} s, where fps={fps:g} of meta/info.json says "
            f"{at / fps:.4g} s: set fps to what was recorded, or resample it"
        )
    return float(times[0])
