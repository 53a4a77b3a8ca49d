"""NPZ files: padded arrays of N episodes.

| array | shape | |
| --- | --- | --- |
| observations | (N, T+1, D) | state vectors; or `frames` (N, T+1, H, W, C) uint8, or both |
| actions | (N, T, A) | |
| rewards | (N, T) | optional: where there are none, `success` makes them |
| success | (N,) or (N, T) | optional: 1 where the attempt succeeded |
| lengths | (N,) | optional: steps of each episode; what lies beyond is ignored |
| terminals | (N, T) or (N,) | optional: 1 where the task ended |
| mpl, error_rate, energy_wh, … | (N,) | optional: any of the episode metrics, NaN where unknown |
| ids | (N,) text | optional |
| tasks | (N,) text or whole numbers | optional: the task of each episode |
| is_synthetic | (N,) or (N, T) | optional: 1 where it was not recorded, as in exports |
"""

import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.data import ColumnsConfig, EpisodesConfig
from phaseb.episodes.cameras import join_cameras
from phaseb.episodes.cameras import to_tag as cameras_tag
from phaseb.episodes.episode import METRICS, TASK_TAG, Episode
from phaseb.episodes.formats.economics import attempt_economics
from phaseb.episodes.formats.images import check_frames, resize
from phaseb.episodes.formats.npz_file import BROKEN, padded, read_arrays, save_arrays
from phaseb.episodes.formats.success import reward_notes, success_flags, success_rewards
from phaseb.episodes.inventory import Inventory, LeftOut
from phaseb.episodes.resolution import compact
from phaseb.episodes.sources import Entry
from phaseb.episodes.state_columns import to_tag
from phaseb.episodes.tasks import own_name
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

_CAMERAS = ("frames", "frames_1", "frames_2", "frames_3")
_MADE = "is_synthetic"
_READ = ("observations", "frames", "actions", "rewards", "success", "lengths", "terminals", "ids", "tasks", _MADE)
_TEXTS = {"ids": ("U", "text"), "tasks": ("Uiu", "text or whole numbers")}
"""Arrays that hold other than numbers: the kinds of their types, and these in words."""


class Source:
    """The episodes of one file, each checked when it is read."""

    def __init__(self, config: EpisodesConfig) -> None:
        self._episodes, self._inventory = _read(config.path, config.max_bytes, config.columns)

    def entries(self) -> Sequence[Entry]:
        return [(name, "") for name in self._episodes.ids]

    def lengths(self) -> Sequence[int]:
        return self._episodes.steps

    def tasks(self) -> Sequence[str] | None:
        return self._episodes.tasks

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        return map(self._episodes.make, indices)

    def inventory(self) -> Inventory:
        """What the file holds, and what of it is left out."""
        return self._inventory


def read_npz(path: str, max_bytes: int, columns: ColumnsConfig | None = None) -> list[Episode]:
    """The episodes of a file at a local path or a storage URI.

    Args:
        path: of the file.
        max_bytes: the most that its arrays may unpack to; checked against what it declares before reading.
        columns: other names of the arrays, and what to work economics out from.

    Raises:
        DataError: naming file, array and reason, for whatever is wrong with it. Pickled arrays are refused.
    """
    episodes, _ = _read(path, max_bytes, columns or ColumnsConfig())
    return [episodes.make(i) for i in range(len(episodes.ids))]


def write_npz(store: Store, name: str, episodes: Sequence[Episode]) -> None:
    """Write episodes as one NPZ file; splits, sources and tags other than tasks are not part.

    Raises:
        DataError: for no episodes, or where some carry states, frames or actions and others do not.
    """
    save_arrays(store, name, pack_episodes(episodes))


def pack_episodes(episodes: Sequence[Episode]) -> dict[str, NDArray[Any]]:
    """Episodes as the padded arrays of the format.

    Raises:
        DataError: for no episodes, or where some carry states, frames or actions and others do not.
    """
    if not episodes:
        raise DataError("no episodes to write")
    arrays: dict[str, NDArray[Any]] = {"lengths": np.array([len(e) for e in episodes], np.int64)}
    for field in ("state", "frames", "actions", "rewards"):
        array = padded(field, [getattr(e, field) for e in episodes])
        if array is not None:
            arrays["observations" if field == "state" else field] = array
    arrays["terminals"] = np.array([e.terminated for e in episodes], bool)
    arrays["ids"] = np.array([e.id for e in episodes], np.str_)
    if all(e.tags.get(TASK_TAG) for e in episodes):
        arrays["tasks"] = np.array([e.tags[TASK_TAG] for e in episodes], np.str_)
    for metric in METRICS:
        if any(metric in e.metrics for e in episodes):
            arrays[metric] = np.array([e.metrics.get(metric, math.nan) for e in episodes], np.float64)
    return arrays


@dataclass(frozen=True)
class _Episodes:
    """The episodes in some arrays: their ids, tasks and steps, and what makes number i of them."""

    path: str
    ids: tuple[str, ...]
    tasks: tuple[str, ...] | None
    build: Callable[[int], Episode]
    steps: tuple[int, ...]

    def make(self, index: int) -> Episode:
        try:
            return self.build(index)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error


def _read(path: str, max_bytes: int, columns: ColumnsConfig) -> tuple[_Episodes, Inventory]:
    folder, _, name = path.rpartition("/")
    store = Store.at(folder or ".")
    if store.exists(name) and not store.is_file(name):
        raise DataError(f"{path} is a folder, wanted an NPZ file; set episodes.path to the file")
    try:
        with store.filesystem.open_input_file(store.path(name)) as file, zipfile.ZipFile(file) as archive:
            arrays, unread, widths = _rename(archive, columns, max_bytes)
        episodes, left = _episodes(arrays, path, columns, to_tag(widths))
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}; set episodes.path") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except BROKEN as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path} is damaged or no NPZ file ({reason}): copy or write it again") from error
    rows, count = sum(episodes.steps) + sum(part.rows for part in left), len(episodes.ids)
    notes = reward_notes(arrays, columns, "rewards", "success")
    return episodes, Inventory(count + sum(part.episodes for part in left), rows, left, unread, notes)


def _rename(
    archive: zipfile.ZipFile, columns: ColumnsConfig, max_bytes: int
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...], list[tuple[str, int]]]:
    """The arrays of a file under the format's own names, those not read, and name and width of a state's parts."""
    names: dict[str, tuple[str, ...]] = {name: (name,) for name in (*_READ, *METRICS)}
    given = {"observations": columns.observation, "actions": columns.action, **_camera_arrays(columns.images)}
    single = {
        "rewards": columns.reward,
        "terminals": columns.terminal,
        "success": columns.success,
        "power_w": columns.power_w,
    }
    names |= {name: found for name, found in given.items() if found}
    names |= {name: (found,) for name, found in single.items() if found}
    read = read_arrays(archive, [array for found in names.values() for array in found], max_bytes)
    absent = [array for name in (*given, *single) for array in names.get(name, ()) if name != array not in read]
    if absent:
        raise DataError(
            f"lacks the array {absent[0]!r} that episodes.columns names; it has {archive.namelist()}; "
            "mend episodes.columns"
        )
    unread = tuple(sorted({member.removesuffix(".npy") for member in archive.namelist()} - set(read)))
    widths = [(name, read[name].shape[-1]) for name in columns.observation if read[name].ndim > 2]
    whole = {name: found for name, found in names.items() if all(array in read for array in found)}
    arrays = {
        name: np.concatenate([read[a] for a in found], axis=-1) if len(found) > 1 else read[found[0]]
        for name, found in whole.items()
    }
    return arrays, unread, widths


def _episodes(
    arrays: dict[str, NDArray[Any]], path: str, columns: ColumnsConfig, tag: dict[str, str]
) -> tuple[_Episodes, tuple[LeftOut, ...]]:
    file = path.rpartition("/")[2]
    num, steps = _check_shapes(arrays)
    lengths, ended = _lengths(arrays, num, steps)
    metrics = {name: arrays[name].astype(np.float64) for name in METRICS if name in arrays}
    ids = arrays.get("ids", np.array([f"{file.removesuffix('.npz')}-{i:06d}" for i in range(num)]))
    tasks = None if "tasks" not in arrays else [own_name(str(task)) for task in arrays["tasks"].tolist()]
    floats = _numbers(arrays, lengths)
    shown = [name for name in _CAMERAS if name in arrays]

    def cut(name: str, i: int, extra: int = 0) -> NDArray[Any] | None:
        return floats[name][i, : lengths[i] + extra] if name in floats else None

    def frames(i: int) -> NDArray[np.uint8] | None:
        if not shown:
            return None
        seen = (check_frames(f"array {name!r}", arrays[name][i, : lengths[i] + 1]) for name in shown)
        return join_cameras([resize(one, columns.frame_side) for one in seen])

    def flags(i: int) -> NDArray[np.bool_] | None:
        if "success" not in arrays:
            return None
        found, steps = arrays["success"][i], int(lengths[i])
        return success_flags(columns.success or "success", found[:steps] if found.ndim else found, steps)

    def rewards(i: int, success: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        if "rewards" in floats:
            return floats["rewards"][i, : lengths[i]]
        return np.zeros(lengths[i], np.float32) if success is None else success_rewards(success)

    there = np.flatnonzero(lengths).tolist()

    def build(number: int) -> Episode:
        i = there[number]
        success, power = flags(i), arrays["power_w"][i] if "power_w" in arrays else None
        succeeded = success is not None and bool(success[-1])
        return Episode(
            id=str(ids[i]),
            state=cut("observations", i, 1),
            actions=cut("actions", i),
            terminated=bool(ended[i]) if "terminals" in arrays else succeeded,
            rewards=rewards(i, success),
            frames=frames(i),
            source="synthetic" if _MADE in arrays and arrays[_MADE][i].any() else "real",
            tags={"file": file, **_task_tag(tasks, i), **tag, **cameras_tag(columns.images)},
            metrics=attempt_economics(int(lengths[i]), columns.step_s, success, power)
            | {name: float(values[i]) for name, values in metrics.items()},
        )

    empty = num - len(there)
    if not there:
        raise DataError("holds no episodes: all 'lengths' are 0; save some")
    named = None if tasks is None else tuple(tasks[i] for i in there)
    episodes = _Episodes(path, tuple(str(ids[i]) for i in there), named, build, tuple(lengths[there].tolist()))
    return episodes, ((LeftOut("episodes of no rows", empty),) if empty else ()) + _beyond(floats, lengths)


def _task_tag(tasks: Sequence[str] | None, i: int) -> dict[str, str]:
    return {TASK_TAG: tasks[i]} if tasks and tasks[i] else {}


def _numbers(arrays: dict[str, NDArray[Any]], lengths: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Actions, rewards and observations that are there; observations in the narrowest floats that hold them."""
    there = [name for name in ("actions", "rewards") if name in arrays]
    with np.errstate(over="ignore"):
        numbers: dict[str, NDArray[Any]] = {name: np.ascontiguousarray(arrays[name], np.float32) for name in there}
    if "observations" in arrays:
        rows = arrays["observations"]
        inside = np.arange(rows.shape[1]) <= lengths[:, None]
        numbers["observations"] = rows.astype(compact(rows[inside]).dtype)
    return numbers


def _beyond(floats: Mapping[str, NDArray[np.float32]], lengths: NDArray[np.int64]) -> tuple[LeftOut, ...]:
    """Rows behind the ends of their episodes that are more than padding: an action or a reward is not 0."""
    actions = floats["actions"]
    rewards = floats.get("rewards", np.zeros(actions.shape[:2], np.float32))
    behind = np.arange(rewards.shape[1])[None] >= lengths[:, None]
    told = behind & ((np.nan_to_num(rewards) != 0) | (np.nan_to_num(actions) != 0).any(axis=2))
    if not told.any():
        return ()
    what = "rows behind an episode's end ('lengths', or its first terminal) that are not 0"
    return (LeftOut(what, rows=int(told.sum()), reward=float(np.nansum(rewards[told], dtype=np.float64))),)


def _check_shapes(arrays: dict[str, NDArray[Any]]) -> tuple[int, int]:
    """The number of episodes and of steps that all arrays agree on."""
    cameras = [name for name in _CAMERAS if name in arrays]
    if "observations" not in arrays and not cameras:
        raise DataError(
            f"lacks the array 'observations' (N, T+1, D); it has {sorted(arrays) or 'none of ours'}: "
            "save it, or set episodes.columns.observation"
        )
    if "actions" not in arrays:
        raise DataError(f"lacks the array 'actions'; it has {sorted(arrays)}: save it, or set episodes.columns")
    if arrays.get("rewards", np.zeros((1, 1))).ndim != 2:
        raise DataError(f"array 'rewards' has shape {arrays['rewards'].shape}, wanted (N, T)")
    leading = "rewards" if "rewards" in arrays else "actions"
    num, steps = (*arrays[leading].shape, 0, 0)[:2]
    if not num or not steps:
        raise DataError(f"holds no episodes: {leading!r} has shape {arrays[leading].shape}; save some")
    shapes: dict[str, tuple[tuple[int, ...], int]]
    shapes = {"observations": ((num, steps + 1), 3), "actions": ((num, steps), 3)}
    shapes |= dict.fromkeys(cameras, ((num, steps + 1), 5))
    shapes["power_w"] = (num, steps), 2
    for name in ("success", _MADE):
        shapes[name] = ((num, steps), 2) if name in arrays and arrays[name].ndim == 2 else ((num,), 1)
    shapes |= dict.fromkeys(("lengths", "ids", "tasks", *METRICS), ((num,), 1))
    for name, (lead, ndim) in shapes.items():
        found = arrays[name].shape if name in arrays else lead
        if name in arrays and (found[: len(lead)] != lead or len(found) != ndim or 0 in found):
            raise DataError(f"array {name!r} has shape {found}, wanted {lead} first and {ndim} dimensions in all")
    _check_types(arrays)
    return num, steps


def _check_types(arrays: dict[str, NDArray[Any]]) -> None:
    for name in _CAMERAS:
        if name in arrays and arrays[name].dtype != np.uint8:
            raise DataError(f"array {name!r} is {arrays[name].dtype}, wanted uint8")
    for name, array in arrays.items():
        kinds, wanted = _TEXTS.get(name, ("fiub", "numbers"))
        if array.dtype.kind not in kinds:
            raise DataError(f"array {name!r} is of type {array.dtype}, wanted {wanted}: save it as such")
        if array.dtype.kind == "U" and re.search("[\ud800-\udfff]", "".join(array.tolist())):
            raise DataError(f"array {name!r} holds halves of characters, which are no text: save it anew")
        if name == "actions" and array.dtype.kind in "iub":
            raise DataError(
                f"array 'actions' is of type {array.dtype}, so they are discrete, which is not supported: "
                "use continuous ones; whole numbers that are continuous, save as float32"
            )
        if name in METRICS and np.isinf(array).any():
            raise DataError(f"array {name!r} has Inf; write NaN where a metric is unknown")


def _lengths(arrays: dict[str, NDArray[Any]], num: int, steps: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The number of steps of each episode, and whether its task ended."""
    ended = np.asarray(arrays.get("terminals", np.zeros(num)))
    if ended.shape not in ((num,), (num, steps)) or not np.isin(ended, (0, 1)).all():
        raise DataError(f"array 'terminals' has shape {ended.shape}, wanted {(num, steps)} or {(num,)} of 0 and 1")
    first = np.where(ended.any(1), ended.argmax(1) + 1, steps) if ended.ndim == 2 else np.full(num, steps)
    given = arrays.get("lengths", first)
    with np.errstate(invalid="ignore"):
        lengths = given.astype(np.int64)
    if (lengths != given).any() or lengths.min() < 0 or lengths.max() > steps:
        raise DataError(f"array 'lengths' must hold whole numbers from 0 to {steps}")
    if ended.ndim == 1:
        return lengths, ended.astype(bool)
    inside = ended.astype(bool) & (np.arange(steps)[None] < lengths[:, None])
    early = inside.any(1) & (inside.argmax(1) + 1 < lengths)
    if early.any():
        raise DataError(f"episode {int(early.argmax())} goes on after its terminal; cut it there or set 'lengths'")
    return lengths, np.asarray(inside.any(1), bool)


def _camera_arrays(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The arrays of several cameras under names of our own."""
    return {own: (name,) for own, name in zip(_CAMERAS, names, strict=False)}
