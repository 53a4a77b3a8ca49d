"""From the columns of one recorded episode, whatever file they lie in, to a `RecordedEpisode`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.cameras import join_cameras
from phaseb.episodes.cameras import to_tag as cameras_tag
from phaseb.episodes.formats.economics import attempt_economics
from phaseb.episodes.formats.images import check_frames, decode_images, resize
from phaseb.episodes.formats.success import success_flags, success_rewards
from phaseb.episodes.recorded import RecordedEpisode, Rows
from phaseb.episodes.resolution import compact
from phaseb.episodes.state_columns import short_name, to_tag
from phaseb.errors import DataError

SYNTHETIC = ("is_synthetic", "infos/is_synthetic")
"""Columns that mark what was not recorded, as exports of phaseb have them."""
Columns = Mapping[str, Any]
"""Columns by name, loaded when they are asked for: arrays, of `bytes` objects for compressed images, and videos."""


@dataclass(frozen=True)
class RecordedVideo:
    """A camera that is kept as a video.

    Attributes:
        num_frames: rows of the episode, each of which has a frame.
        decode: the frames (K, H, W, 3) at K rows; at all of them for None.
    """

    num_frames: int
    decode: Callable[[Rows | None], NDArray[np.uint8]]

    def __len__(self) -> int:
        return self.num_frames


@dataclass(frozen=True)
class Layout:
    """How a format calls its columns (used where the configuration says nothing) and how long a step is, s.

    `terminal` marks the end of the task. Where a format marks every end by one flag, it is `done` instead: an end is a
    time limit where `truncated` says so, where `success` stays 0, or after `limit` rows. Where a format marks no end,
    success in the last row is one. `entries` names the numbers of single columns.
    """

    observation: tuple[str, ...]
    action: tuple[str, ...]
    reward: str
    terminal: str = ""
    next_observation: tuple[str, ...] = ()
    success: str = ""
    step_s: float = 0.0
    done: str = ""
    truncated: str = ""
    limit: int = 0
    entries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def follows(self, config: EpisodesConfig) -> bool:
        """Whether the observation after the last action is recorded and used."""
        return bool(self.next_observation) and not config.columns.observation and not config.columns.images


def read_columns(name: str, columns: Columns, layout: Layout, config: EpisodesConfig, file: str) -> RecordedEpisode:
    """The episode in some columns of R rows of observations and A of actions; its frames are not read yet.

    R = A + 1 is complete. Where R = A, the last row has no successor: the format's next observation is appended if
    it has one, else the last action is left out and its reward is added to the step before.

    Raises:
        DataError: for columns that are missing, of other lengths, not numbers, or not finite.
    """
    wanted = config.columns
    names = tuple(n for n in wanted.observation or layout.observation if n not in wanted.images)
    state, tag = _observed(columns, names, layout) if names else (None, {})
    if state is None and not wanted.images:
        raise DataError(
            f"has no vectors to observe; it has {', '.join(columns)}; set episodes.columns.images or "
            "episodes.columns.observation"
        )
    actions = _actions(columns, wanted.action or layout.action)
    success = wanted.success or layout.success
    flags = success_flags(success, _column(columns, success), len(actions)) if success else None
    rewards = _rewards(columns, layout, config, flags, len(actions))
    terminated = _terminated(columns, layout, config, flags, len(actions))
    seen = {} if state is None else {"observations": len(state)}
    rows = len(state) if state is not None else len(_column(columns, wanted.images[0]))
    _check_lengths(len(actions), {"rewards": len(rewards), **(seen or {"pictures": rows})})
    if rows == len(actions) and layout.follows(config):
        assert state is not None
        after, _ = _observed(columns, layout.next_observation, layout)
        if len(after) != rows:
            raise DataError(
                f"columns differ in length: {names[0]} {rows}, {layout.next_observation[0]} {len(after)}; "
                "write rows of one length"
            )
        state = np.concatenate([state, after[-1:]])
    elif rows == len(actions):
        if rows < 2:
            raise DataError("has one row and no observation after it, so no step; leave the episode out")
        with np.errstate(over="ignore", invalid="ignore"):  # Inf is refused when the episode is made
            rewards[-2] += rewards[-1]
        actions, rewards = actions[:-1], rewards[:-1]

    step_s = wanted.step_s or layout.step_s
    return RecordedEpisode(
        id=name,
        state=state,
        frames_at=partial(_frames, columns, config, rows, step_s) if wanted.images else None,
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        metrics=attempt_economics(
            len(actions),
            step_s,
            flags,
            _floats(columns, wanted.power_w).reshape(-1) if wanted.power_w else None,
        ),
        tags={"file": file, **tag, **cameras_tag(wanted.images)},
        step_s=step_s,
        source="synthetic" if _is_synthetic(columns) else "real",
    )


def _is_synthetic(columns: Columns) -> bool:
    """Whether an export of phaseb, or another one, says that an episode was not recorded."""
    named = next((name for name in SYNTHETIC if name in columns), None)
    return named is not None and bool(np.asarray(_numbers(columns, named)).any())


def _observed(columns: Columns, names: tuple[str, ...], layout: Layout) -> tuple[NDArray[Any], dict[str, str]]:
    """Columns (R, …) side by side as (R, D), each flattened as Gymnasium does, and the tag that names them.

    They are in double precision where single precision cannot hold one of them.
    """
    parts: list[NDArray[Any]] = [compact(_numbers(columns, name), whole=False) for name in names]
    for name, part in zip(names, parts, strict=True):
        if part.ndim > 3:
            raise DataError(
                f"column {name!r} has {part.ndim - 1} dimensions a row {part.shape[1:]}, so it is no vector"
                ": read it with episodes.columns.images if it is a camera, or choose others with "
                "episodes.columns.observation"
            )
    named: list[tuple[str, int]] = []
    for name, part in zip(names, parts, strict=True):
        width, entries = math.prod(part.shape[1:]), layout.entries.get(name, ())
        named += [(entry, 1) for entry in entries] if len(entries) == width else [(short_name(name), width)]
    return _side_by_side(names, parts), to_tag(named)


def _actions(columns: Columns, names: tuple[str, ...]) -> NDArray[np.float32]:
    arrays = [_numbers(columns, name) for name in names]
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.kind in "iub":
            raise DataError(
                f"actions {name!r} are of type {array.dtype}, so they are discrete, which is not supported:"
                " use continuous ones; whole numbers that are continuous, save as float32"
            )
        if array.ndim > 2:
            raise DataError(f"actions {name!r} have shape {array.shape[1:]} a row, wanted one vector: save them flat")
    return _side_by_side(names, [_as_floats(array) for array in arrays])


def _rewards(
    columns: Columns, layout: Layout, config: EpisodesConfig, flags: NDArray[np.bool_] | None, rows: int
) -> NDArray[np.float32]:
    """Recorded rewards; those of success flags where there are none; zeros where there are no flags either."""
    named = config.columns.reward
    if not named and layout.reward not in columns:
        return np.zeros(rows, np.float32) if flags is None else success_rewards(flags)
    name = named or layout.reward
    rewards = _floats(columns, name)
    if rewards.size != len(rewards):
        raise DataError(
            f"rewards {name!r} have shape {rewards.shape[1:]} a row, wanted one number: set "
            "episodes.columns.reward to another column"
        )
    return rewards.reshape(-1).copy()


def _terminated(
    columns: Columns, layout: Layout, config: EpisodesConfig, flags: NDArray[np.bool_] | None, rows: int
) -> bool:
    """Whether the task ended with the last row; a time limit is no end, and success there is one."""
    named = config.columns.terminal or layout.terminal
    if named:
        return _last(columns, named)
    if not layout.done:
        return flags is not None and bool(flags[-1:].any())
    if not _last(columns, layout.done):
        return False
    if layout.truncated:
        return not _last(columns, layout.truncated)
    if flags is not None:
        return bool(flags.any())
    return rows != layout.limit


def _last(columns: Columns, name: str) -> bool:
    values = _numbers(columns, name).reshape(-1)
    if not np.isin(values, (0, 1)).all():
        raise DataError(
            f"column {name!r} holds other values than 0 and 1, so no flags of ends; write flags, or set "
            "episodes.columns.terminal to a column of them"
        )
    return bool(values[-1:].any())


def _check_lengths(num_actions: int, seen: Mapping[str, int]) -> None:
    """See that there is a reward an action, and one observation more or as many."""
    rows = {size for name, size in seen.items() if name != "rewards"}
    if seen.get("rewards", num_actions) != num_actions or not rows <= {num_actions, num_actions + 1}:
        lengths = ", ".join(f"{name} {size}" for name, size in {"actions": num_actions, **seen}.items())
        raise DataError(
            f"columns differ in length: {lengths}; write a reward a row, and one observation more or as many"
        )


def _column(columns: Columns, name: str) -> Any:
    if name not in columns:
        raise DataError(f"has no column {name!r}; it has {', '.join(columns)}; set episodes.columns")
    return columns[name]


def _numbers(columns: Columns, name: str) -> NDArray[Any]:
    array = np.asarray(_column(columns, name))
    if array.dtype.kind not in "fiub" or not array.ndim:
        raise DataError(
            f"column {name!r} is of type {array.dtype}{array.shape}, wanted numbers, rows first; set episodes.columns"
        )
    return array


def _floats(columns: Columns, name: str) -> NDArray[np.float32]:
    return _as_floats(_numbers(columns, name))


def _as_floats(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype == np.float32:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def _side_by_side(names: tuple[str, ...], parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if len({len(part) for part in parts}) > 1:
        lengths = ", ".join(f"{name} {len(part)}" for name, part in zip(names, parts, strict=True))
        raise DataError(f"columns differ in length: {lengths}; choose columns of one length in episodes.columns")
    flat = [part.reshape(len(part), math.prod(part.shape[1:])) for part in parts]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)


def _frames(columns: Columns, config: EpisodesConfig, rows: int, step_s: float, kept: Rows | None) -> NDArray[np.uint8]:
    """The frames of all cameras, side by side (see `cameras`); each is decoded and resized by itself.

    Args:
        columns: of the episode.
        config: which cameras, and their size.
        rows: of the episode's observations.
        step_s: length of a row, s; 0 where it is unknown.
        kept: those whose frames are wanted; no other is decoded. None: all.

    Raises:
        DataError: naming the camera, and how many frames each has where they differ.
    """
    found = {name: _column(columns, name) for name in config.columns.images}
    counts = {name: len(recorded) for name, recorded in found.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"cameras differ in their number of frames: {shown}; record them at one rate")
    if set(counts.values()) != {rows}:
        raise DataError(
            f"columns differ in length: observations {rows}, pictures {next(iter(counts.values()))}; write a frame "
            "an observation"
        )
    return join_cameras([_camera(name, recorded, config, step_s, kept) for name, recorded in found.items()])


def _camera(name: str, recorded: Any, config: EpisodesConfig, step_s: float, kept: Rows | None) -> NDArray[np.uint8]:
    size = config.columns.frame_side
    if isinstance(recorded, RecordedVideo):
        return recorded.decode(kept)
    wanted = recorded if kept is None else recorded[kept]
    if wanted.dtype == object:

        def place(i: int) -> str:
            row = i if kept is None else int(kept[i])
            return f"camera {name!r}, row {row}" + (f" at {row * step_s:.3f} s" if step_s else "")

        return decode_images(list(wanted), size, config.max_bytes, place)
    return resize(check_frames(f"camera {name!r}", wanted), size)
