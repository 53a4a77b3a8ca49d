"""A stretch of a video as frames, exact to the frame."""

import math
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from phaseb.episodes.formats.images import check_budget
from phaseb.errors import DataError
from phaseb.runtime.storage import Store


def decode_video(
    store: Store, name: str, start_s: float, num_frames: int, fps: float, size: int, max_bytes: int
) -> NDArray[np.uint8]:
    """Frames at start_s + k / fps for k below `num_frames`, as (num_frames, H, W, 3).

    Args:
        store, name: the file.
        size: side to bring them to, 0 to keep theirs.
        max_bytes: refuse more than this, before anything is decoded.

    Raises:
        DataError: where the file is damaged or lacks one of the frames.
    """
    path = store.path(name)
    try:
        with store.filesystem.open_input_file(path) as file, av.open(file, "r") as container:
            stream = container.streams.video[0]
            check_budget(num_frames, size or stream.width, size or stream.height, max_bytes)
            frames, seen = _collect(container, stream, start_s, num_frames, fps, size)
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}") from error
    except (av.FFmpegError, OSError, ValueError, IndexError, TypeError, MemoryError) as error:
        raise DataError(f"{path} cannot be decoded: {error}") from error
    if frames is None or not seen.all():
        raise DataError(f"{path} has no frame at {start_s + int(np.flatnonzero(~seen)[0]) / fps:.3f} s")
    return frames


def _collect(
    container: Any, stream: Any, start_s: float, num_frames: int, fps: float, size: int
) -> tuple[NDArray[np.uint8] | None, NDArray[np.bool_]]:
    """The frames found, and which of them were."""
    stream.thread_type = "AUTO"
    # One reformatter for all frames: a frame's own methods set the conversion up anew each time, at twice the cost.
    convert = VideoReformatter()
    options: dict[str, Any] = {"width": size, "height": size, "interpolation": "AREA"} if size else {}
    if start_s > 0:
        container.seek(math.floor(start_s / stream.time_base), stream=stream, backward=True)
    frames: NDArray[np.uint8] | None = None
    seen = np.zeros(num_frames, bool)
    for picture in container.decode(stream):
        at = round((picture.time - start_s) * fps)
        if at >= num_frames:
            break
        if at < 0:
            continue
        image = convert.reformat(picture, format="rgb24", **options).to_ndarray()
        if frames is None:
            frames = np.empty((num_frames, *image.shape), np.uint8)
        frames[at] = image
        seen[at] = True
        if seen.all():
            break
    return frames, seen
