"""Camera frames: compressed images decoded, and any frames brought to one size."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.errors import DataError

Frames = NDArray[np.uint8]


def decode_images(blobs: Sequence[bytes], size: int, max_bytes: int, place: Callable[[int], str]) -> Frames:
    """Still images (JPEG, PNG) as (N, H, W, 3).

    Args:
        blobs: one file each, all of one size.
        size: side to bring them to, 0 to keep theirs.
        max_bytes: refuse more than this, from what the images say of themselves before they are decoded.
        place: what to call the one of a number in messages.

    Raises:
        DataError: naming the place, for bytes that are no image.
    """
    import av

    frames = []
    for i, blob in enumerate(blobs):
        try:
            with av.open(io.BytesIO(blob), "r") as container:
                stream = container.streams.video[0]
                check_budget(len(blobs), stream.width, stream.height, max_bytes)
                decoded = next(container.decode(stream))
                check_depth(decoded.format)
                picture = np.asarray(decoded.to_ndarray(format="rgb24"), np.uint8)
        except (av.FFmpegError, StopIteration, IndexError, ValueError, TypeError) as error:
            raise DataError(
                f"{place(i)}: the image cannot be decoded ({reason(error)}); record it again, or choose another "
                "episodes.columns.images"
            ) from error
        frames.append(resize(picture[None], size)[0])
    if len({frame.shape for frame in frames}) > 1:
        other = next(i for i, frame in enumerate(frames) if frame.shape != frames[0].shape)
        shown = ["x".join(map(str, frame.shape[:2])) for frame in (frames[other], frames[0])]
        raise DataError(
            f"{place(other)}: the image is of {shown[0]} pixels, the first of {shown[1]}; set "
            "episodes.columns.image_size"
        )
    return np.stack(frames)


def reason(error: Exception) -> str:
    """What a decoder said of some bytes, on one line and without numbers of errors."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def check_frames(what: str, array: NDArray[Any]) -> Frames:
    """Frames (N, H, W, C) of 1, 3 or 4 channels, put last where they are recorded first.

    Raises:
        DataError: naming `what`, for anything but uint8 pictures.
    """
    channels = (1, 3, 4)
    if array.dtype != np.uint8 or array.ndim != 4:
        raise DataError(
            f"{what} is {array.dtype}{array.shape}, wanted uint8 (rows, height, width, channels); save "
            "8-bit pictures, or choose another episodes.columns.images"
        )
    if array.shape[3] in channels:
        return array
    if array.shape[1] in channels:
        return array.transpose(0, 2, 3, 1)
    raise DataError(
        f"{what} has shape {array.shape}, so no 1, 3 or 4 channels, first or last; save each picture of a "
        "stack apart, or choose another episodes.columns.images"
    )


def resize(frames: Frames, size: int) -> Frames:
    """Frames (N, H, W, C) at `size` by `size` pixels, smoothed where they shrink; 0 keeps their size."""
    if size == 0 or frames.shape[1:3] == (size, size):
        return np.ascontiguousarray(frames)
    images = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(small.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())


def check_depth(pixels: Any) -> None:
    """Refuse one channel of more than 8 bits: such pictures measure something, which 8 bits would lose.

    Args:
        pixels: `av.VideoFormat` of a decoded picture.
    """
    bits = max(component.bits for component in pixels.components)
    if bits > 8 and len(pixels.components) == 1:
        raise DataError(
            f"pictures of one channel of {bits} bits ({pixels.name}), such as depth, are not read: "
            "choose another episodes.columns.images"
        )


def check_budget(num_frames: int, width: int, height: int, max_bytes: int) -> None:
    """Refuse frames that would take more than `max_bytes`."""
    size = num_frames * width * height * 3
    if size > max_bytes:
        raise DataError(
            f"{num_frames} frames of {width}x{height} unpack to {size} bytes, more than {max_bytes}; raise "
            "episodes.max_bytes, or set episodes.columns.image_size"
        )
