"""Write a LeRobot data set (layout v3.0), which LeRobot's own library loads.

A row is an observation and the action that followed it, as LeRobot has it; the state after the last action is kept
by `next.observation.state`, so states, actions and rewards come back whole. What the gate said of each step is in
the columns `is_synthetic`, `trust` and `weight`, the latents in `latent`. Without cameras the state is written once
more as `observation.environment_state`: LeRobot's ACT and diffusion policy need a camera or that column.
"""

import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phaseb.episodes.cameras import in_colour, short_camera, split_cameras
from phaseb.episodes.episode import TASK_TAG, Episode
from phaseb.episodes.formats.export import Exported
from phaseb.episodes.formats.lerobot_statistics import ImageStatistics, column_statistics
from phaseb.episodes.parquet_file import write_table
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

CAMERAS = "observation.images."
STATE, STATE_AGAIN = "observation.state", "observation.environment_state"
FILES_PER_CHUNK = 1000
TASK = "phaseb"
"""Of episodes that name none: LeRobot needs one."""
_CRF = "14"  # x264's quality, in full chroma: above 35 dB on frames of sharp edges


def write_lerobot(store: Store, episodes: Iterable[Exported], fps: int) -> int:
    """Write episodes, frames of one in memory at a time, and return their number.

    Args:
        store: the folder of the data set.
        episodes: all with the same columns.
        fps: steps in a second.

    Raises:
        DataError: for no episodes, or episodes that lack actions or differ in their columns.
    """
    features: dict[str, Any] = {}
    meta: list[dict[str, Any]] = []
    kept: list[dict[str, NDArray[Any]]] = []
    images: dict[str, ImageStatistics] = {}
    tasks: dict[str, int] = {}
    first = 0
    for index, exported in enumerate(episodes):
        task = exported.episode.tags.get(TASK_TAG) or TASK
        number = tasks.setdefault(task, len(tasks))
        columns, cameras = _columns(exported, index, first, fps, number), _cameras(exported.episode)
        found = _features(columns, cameras, fps)
        features = features or found
        if found != features:
            raise DataError(f"episode {exported.episode.id} differs in its columns from the first")
        chunk, file = divmod(index, FILES_PER_CHUNK)
        write_table(store, f"data/chunk-{chunk:03d}/file-{file:03d}.parquet", _table(columns))
        for camera, frames in cameras.items():
            store.write_bytes(_encode(frames, fps), f"videos/{camera}/chunk-{chunk:03d}/file-{file:03d}.mp4")
            images.setdefault(camera, ImageStatistics()).add(frames)
        meta.append(_locate(exported, index, first, fps, list(cameras)) | {"tasks": [task]})
        kept.append(columns)
        first += len(exported.episode)
    if not meta:
        raise DataError("no episodes to export")
    _write_meta(store, meta, features, first, fps, list(tasks))
    joined = {name: np.concatenate([columns[name] for columns in kept]) for name in kept[0]}
    stats: dict[str, Any] = {name: column_statistics(column) for name, column in joined.items()}
    stats |= {camera: pictures.summary() for camera, pictures in images.items()}
    store.write_text(json.dumps(stats), "meta", "stats.json")
    return len(meta)


def _cameras(episode: Episode) -> dict[str, NDArray[np.uint8]]:
    """The frames (T, H, W, 3) that go with the rows, by the camera's name in LeRobot."""
    return {f"{CAMERAS}{short_camera(name)}": in_colour(one[:-1]) for name, one in split_cameras(episode).items()}


def _columns(exported: Exported, index: int, first: int, fps: int, task: int) -> dict[str, NDArray[Any]]:
    """The columns of one episode of task number `task`, (T,) or (T, D)."""
    episode, steps = exported.episode, len(exported.episode)
    if episode.actions is None:
        raise DataError(f"episode {episode.id} lacks actions")
    columns: dict[str, NDArray[Any]] = {}
    if episode.state is not None:
        columns |= {STATE: episode.state[:-1], f"next.{STATE}": episode.state[1:]}
        if episode.frames is None:
            columns[STATE_AGAIN] = columns[STATE]
    columns["action"] = episode.actions
    if exported.z is not None:
        columns["latent"] = exported.z[:-1]
    at = np.arange(steps)
    return (
        columns
        | exported.step_columns()
        | {
            "next.reward": episode.rewards,
            "next.done": (at == steps - 1) & episode.terminated,
            "next.terminated": (at == steps - 1) & episode.terminated,  # an end at any length, done may be a limit
            "timestamp": (at / fps).astype(np.float32),
            "frame_index": at,
            "episode_index": np.full(steps, index),
            "index": first + at,
            "task_index": np.full(steps, task, np.int64),
        }
    )


def _features(columns: dict[str, NDArray[Any]], cameras: dict[str, NDArray[np.uint8]], fps: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: {"dtype": column.dtype.name, "shape": list(column.shape[1:]) or [1], "names": None}
        for name, column in columns.items()
    }
    if STATE_AGAIN in found:
        found[STATE_AGAIN]["info"] = {"copy_of": STATE}
    for camera, frames in cameras.items():
        height, width, channels = frames.shape[1:]
        info = {
            "video.height": height,
            "video.width": width,
            "video.channels": channels,
            "video.codec": "h264",
            "video.pix_fmt": "yuv444p",
            "video.fps": fps,
            "video.is_depth_map": False,
            "has_audio": False,
        }
        names = ["height", "width", "channels"]
        found[camera] = {"dtype": "video", "shape": [height, width, channels], "names": names, "info": info}
    return found


def _table(columns: dict[str, NDArray[Any]]) -> pa.Table:
    arrays = {}
    for name, column in columns.items():
        flat = pa.array(np.ascontiguousarray(column).reshape(-1))
        arrays[name] = pa.FixedSizeListArray.from_arrays(flat, column.shape[1]) if column.ndim == 2 else flat
    return pa.table(arrays)


def _locate(exported: Exported, index: int, first: int, fps: int, cameras: Sequence[str]) -> dict[str, Any]:
    """The row of `meta/episodes` that says where an episode lies, and what it is."""
    chunk, file = divmod(index, FILES_PER_CHUNK)
    steps = len(exported.episode)
    row = {
        "episode_index": index,
        "length": steps,
        "data/chunk_index": chunk,
        "data/file_index": file,
        "dataset_from_index": first,
        "dataset_to_index": first + steps,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
        "phaseb/id": exported.episode.id,
        "phaseb/source": exported.episode.source,
        "phaseb/lineage": json.dumps(dict(exported.lineage)),
    }
    for camera in cameras:
        video = f"videos/{camera}"
        row |= {
            f"{video}/chunk_index": chunk,
            f"{video}/file_index": file,
            f"{video}/from_timestamp": 0.0,
            f"{video}/to_timestamp": steps / fps,
        }
    return row


def _write_meta(
    store: Store,
    meta: list[dict[str, Any]],
    features: dict[str, Any],
    frames: int,
    fps: int,
    named: Sequence[str],
) -> None:
    write_table(store, "meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(meta))
    tasks = pa.table({"task_index": pa.array(range(len(named)), pa.int64()), "__index_level_0__": list(named)})
    pandas = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [],
        "pandas_version": "2.0",
        "columns": [
            {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
            {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode", "numpy_type": "object"},
        ],
    }
    write_table(store, "meta/tasks.parquet", tasks.replace_schema_metadata({"pandas": json.dumps(pandas)}))
    info = {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": len(meta),
        "total_frames": frames,
        "total_tasks": len(named),
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{len(meta)}"},
        "features": features,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    store.write_json(info, "meta", "info.json")


def _encode(frames: NDArray[np.uint8], fps: int) -> bytes:
    import av

    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": _CRF, "g": "2"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv444p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())
    return sink.getvalue()
