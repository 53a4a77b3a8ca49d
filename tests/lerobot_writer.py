"""Small LeRobot data sets (layout v2.1) of any columns, written with pyarrow as LeRobot lays them out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Columns = Mapping[str, np.ndarray]


def write_lerobot(folder: Path, episodes: Sequence[Columns], fps: float = 10, **info: Any) -> Path:
    """One Parquet file an episode; rows are a step apart unless `timestamp` or `frame_index` are given."""
    (folder / "meta").mkdir(parents=True)
    (folder / "data" / "chunk-000").mkdir(parents=True)
    lines = []
    for i, columns in enumerate(episodes):
        rows = len(next(iter(columns.values())))
        steps = np.arange(rows)
        whole = {"timestamp": (steps / max(fps, 1)).astype(np.float32), "frame_index": steps, **columns}
        whole |= {"episode_index": np.full(rows, i), "index": steps, "task_index": np.zeros(rows, np.int64)}
        table = pa.table({name: _column(values) for name, values in whole.items()})
        pq.write_table(table, folder / "data" / "chunk-000" / f"episode_{i:06d}.parquet", write_page_checksum=True)
        lines.append(json.dumps({"episode_index": i, "tasks": ["move"], "length": rows}))
    (folder / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    features = {
        name: {"dtype": str(values.dtype), "shape": list(values.shape[1:]) or [1], "names": None}
        for name, values in whole.items()
    }
    known = {
        "codebase_version": "v2.1",
        "fps": fps,
        "features": features,
        "chunks_size": 1000,
        "total_episodes": len(episodes),
        "total_frames": sum(len(next(iter(c.values()))) for c in episodes),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": None,
    }
    (folder / "meta" / "info.json").write_text(json.dumps(known | info))
    return folder


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.array(values.tolist(), _list_of(pa.from_numpy_dtype(values.dtype), values.shape[1:]))


def _list_of(kind: pa.DataType, shape: tuple[int, ...]) -> pa.DataType:
    for side in reversed(shape):
        kind = pa.list_(kind, side)
    return kind
