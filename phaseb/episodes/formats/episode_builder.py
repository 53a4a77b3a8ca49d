"""From the columns of one recorded episode, whatever file they lie in, to an Episode."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.episodes import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.economics import attempt_economics
from phaseb.episodes.formats.images import decode_images, resize
from phaseb.errors import DataError

Columns = Mapping[str, NDArray[Any]]
"""Columns by name, loaded when they are asked for; compressed images are arrays of `bytes` objects."""


@dataclass(frozen=True)
class Layout:
    """How a format calls its columns (used where the configuration says nothing) and how long a step is, s."""

    observation: tuple[str, ...]
    action: tuple[str, ...]
    reward: str
    terminal: str = ""
    next_observation: tuple[str, ...] = ()
    success: str = ""
    step_s: float = 0.0


def make_episode(name: str, columns: Columns, layout: Layout, config: EpisodesConfig, file: str) -> Episode:
    """The episode in some columns of R rows of observations and A of actions.

    R = A + 1 is complete. Where R = A, the last row has no successor: the format's next observation is appended if
    it has one, else the last action is left out and its reward is added to the step before.

    Raises:
        DataError: for columns that are missing, of other lengths, not numbers, or not finite.
    """
    wanted = config.columns
    names = wanted.observation or layout.observation
    state = _vectors(columns, names) if names else None
    frames = _frames(columns, config) if wanted.image else None
    actions = _vectors(columns, wanted.action or layout.action)
    reward_name = wanted.reward or layout.reward
    if not reward_name:
        raise DataError(f"has no rewards; set episodes.columns.reward to one of {', '.join(columns)}")
    rewards = _floats(columns, reward_name).reshape(-1).copy()
    terminal = wanted.terminal or layout.terminal
    terminated = bool(terminal and np.asarray(_column(columns, terminal)).reshape(-1)[-1:].any())
    rows = len(state) if state is not None else len(frames) if frames is not None else 0
    if rows == len(actions) and not wanted.observation and layout.next_observation and frames is None:
        assert state is not None
        state = np.concatenate([state, _vectors(columns, layout.next_observation)[-1:]])
    elif rows == len(actions) > 1:
        rewards[-2] += rewards[-1]
        actions, rewards = actions[:-1], rewards[:-1]
    success = wanted.success or layout.success
    return Episode(
        id=name, state=state, frames=frames, actions=actions, rewards=rewards, terminated=terminated,
        metrics=attempt_economics(
            len(actions), wanted.step_s or layout.step_s, _column(columns, success) if success else None,
            _floats(columns, wanted.power_w).reshape(-1) if wanted.power_w else None,
        ),
        tags={"file": file},
    )  # fmt: skip


def _column(columns: Columns, name: str) -> NDArray[Any]:
    if name not in columns:
        raise DataError(f"has no column {name!r}; it has {', '.join(columns)}; set episodes.columns")
    return columns[name]


def _floats(columns: Columns, name: str) -> NDArray[np.float32]:
    array = np.asarray(_column(columns, name))
    if array.dtype.kind not in "fiub":
        raise DataError(f"column {name!r} is of type {array.dtype}, wanted numbers")
    if array.dtype == np.float32:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def _vectors(columns: Columns, names: tuple[str, ...]) -> NDArray[np.float32]:
    """Columns (R, …) side by side as (R, D)."""
    parts = [_floats(columns, name) for name in names]
    if len({len(part) for part in parts}) > 1:
        lengths = ", ".join(f"{name} {len(part)}" for name, part in zip(names, parts, strict=True))
        raise DataError(f"columns differ in length: {lengths}")
    flat = [part.reshape(len(part), -1) for part in parts]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)


def _frames(columns: Columns, config: EpisodesConfig) -> NDArray[np.uint8]:
    name, size = config.columns.image, config.columns.image_size
    array = _column(columns, name)
    if array.dtype == object:
        return decode_images(list(array), size, config.max_bytes)
    if array.dtype != np.uint8 or array.ndim != 4:
        raise DataError(f"camera {name!r} is {array.dtype}{array.shape}, wanted uint8 (rows, height, width, channels)")
    channels_first = array.shape[1] in (1, 3, 4) and array.shape[3] not in (1, 3, 4)
    return resize(array.transpose(0, 2, 3, 1) if channels_first else array, size)
