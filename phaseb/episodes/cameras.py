"""Several cameras in one array of frames: three channels each, side by side in the order of their names."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.episode import Episode
from phaseb.episodes.state_columns import short_name

TAG = "cameras"
"""The tag of an episode that names its cameras, as JSON."""
COLOURS = 3


def num_cameras(channels: int) -> int:
    """The cameras in frames of so many channels: one of 1, 3 or 4 channels, or several of three each."""
    return channels // COLOURS if channels > COLOURS + 1 else 1


def join_cameras(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Frames (N, H, W, C) of several cameras as (N, H, W, 3 K); a single camera's as they are."""
    if len(frames) == 1:
        return frames[0]
    return np.concatenate([in_colour(one) for one in frames], axis=3)


def in_colour(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames (N, H, W, C) of 1, 3 or 4 channels as (N, H, W, 3), without the fourth."""
    return np.repeat(frames, COLOURS, axis=3) if frames.shape[3] == 1 else frames[..., :COLOURS]


def split_cameras(episode: Episode) -> dict[str, NDArray[np.uint8]]:
    """The frames (T+1, H, W, C) of each camera of an episode by its name; one that has no name is `camera`."""
    if episode.frames is None:
        return {}
    names = camera_names(episode.tags, episode.frames.shape[3])
    if len(names) == 1:
        return {names[0]: episode.frames}
    return {name: episode.frames[..., COLOURS * i : COLOURS * (i + 1)] for i, name in enumerate(names)}


def camera_names(tags: Mapping[str, str], channels: int) -> list[str]:
    """The names of the cameras in frames of so many channels."""
    count = num_cameras(channels)
    named = [str(name) for name in json.loads(tags.get(TAG, "[]"))]
    if len(named) == count:
        return named
    return ["camera"] if count == 1 else [f"camera_{i}" for i in range(count)]


def to_tag(names: Sequence[str]) -> dict[str, str]:
    """The tag of an episode of several cameras; none of a single one."""
    return {TAG: json.dumps(list(names))} if len(names) > 1 else {}


def short_camera(name: str) -> str:
    """A camera's name without the format's prefix, as one word of a path."""
    short = short_name(name).removeprefix("images.").removeprefix("images/")
    return short.strip("/").replace("/", "_").replace(".", "_")
