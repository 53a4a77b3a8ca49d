"""A stretch of a video as frames, exact to the frame."""

import math
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from phaseb.episodes.formats.images import check_budget, reason
from phaseb.episodes.formats.lerobot_rows import TOLERANCE, is_slow, rows_held
from phaseb.episodes.recorded import Rows
from phaseb.errors import DataError
from phaseb.runtime.storage import Store


def decode_video(
    store: Store,
    name: str,
    start_s: float,
    num_frames: int,
    fps: float,
    size: int,
    max_bytes: int,
    recorded: tuple[int, int] | None = None,
    alone: bool = False,
    kept: Rows | None = None,
) -> NDArray[np.uint8]:
    """Frames at start_s + k / fps for k below `num_frames`, or for the K rows kept, as (K, H, W, 3).

    A camera that is slower than the rows keeps its last frame until the next. Every row must have a frame; of rows that
    are not kept, none is converted or held.

    Args:
        store, name: the file.
        size: side to bring them to, 0 to keep theirs.
        max_bytes: refuse more than this, before anything is decoded.
        recorded: height and width that the pictures must have; None where that is unknown.
        alone: whether the file holds these frames and no others.
        kept: the rows whose frames are wanted, ascending; None: all.

    Raises:
        DataError: where the file is damaged, of another size, lacks one of the frames, or has more of them.
    """
    path, wanted = store.path(name), np.arange(num_frames) if kept is None else kept
    try:
        with store.filesystem.open_input_file(path) as file, av.open(file, "r") as container:
            stream = container.streams.video[0]
            check_budget(len(wanted), size or stream.width, size or stream.height, max_bytes)
            if recorded not in (None, (stream.height, stream.width)):
                raise DataError(
                    f"{path} has pictures of {stream.height}x{stream.width}, recorded were "
                    f"{recorded}: write the video again, or mend the shape in meta/info.json"
                )
            frames, seen, more = _collect(container, stream, start_s, num_frames, fps, size, alone, wanted)
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}; copy the videos, or unset episodes.columns.images") from error
    except (av.FFmpegError, OSError, ValueError, IndexError, TypeError, MemoryError) as error:
        raise DataError(
            f"{path} cannot be decoded ({reason(error)}): copy or record it again, or unset episodes.columns.images"
        ) from error
    if frames is None or not seen.all():
        missing_s = start_s + int(np.flatnonzero(~seen)[0]) / fps
        raise DataError(
            f"{path} has no frame at {missing_s:.3f} s, where the rows have one: its times are not theirs; "
            "record it again, or unset episodes.columns.images"
        )
    if alone and more:
        raise DataError(
            f"{path} goes on after its {num_frames} rows, so its frames are not theirs: record it again, "
            "or unset episodes.columns.images"
        )
    return frames


def _collect(
    container: Any, stream: Any, start_s: float, num_frames: int, fps: float, size: int, alone: bool, wanted: Rows
) -> tuple[NDArray[np.uint8] | None, NDArray[np.bool_], bool]:
    """The frames of the rows wanted, which rows have one, and whether later ones were seen (looked for if `alone`)."""
    stream.thread_type = "AUTO"
    # One reformatter for all frames: a frame's own methods set the conversion up anew each time, at twice the cost.
    convert = VideoReformatter()
    options: dict[str, Any] = {"width": size, "height": size, "interpolation": "AREA"} if size else {}
    if start_s > 0:
        container.seek(math.floor(start_s / stream.time_base), stream=stream, backward=True)
    frames: NDArray[np.uint8] | None = None
    seen = np.zeros(num_frames, bool)
    rows_per_frame = fps / float(stream.average_rate or fps)
    slow, hold = is_slow(rows_per_frame), rows_held(rows_per_frame)
    for picture in container.decode(stream):
        exact = (picture.time - start_s) * fps
        at = math.ceil(exact - TOLERANCE) if slow else round(exact)
        if at >= num_frames:
            return frames, seen, True
        if at < 0 or (not slow and abs(exact - at) > TOLERANCE):
            continue  # between two rows, as where a video has more frames than there are rows
        seen[at : at + hold] = True
        first, last = np.searchsorted(wanted, (at, at + hold))
        if last > first:
            image = convert.reformat(picture, format="rgb24", **options).to_ndarray()
            if frames is None:
                frames = np.empty((len(wanted), *image.shape), np.uint8)
            frames[first:last] = image  # rows of later pictures are written over
        if not slow and seen.all() and not alone:
            break
    return frames, seen, False
