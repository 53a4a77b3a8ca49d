"""Episodes as Arrow tables: one row an episode, fixed-shape tensors a step, any number of steps.

| column | type | |
| --- | --- | --- |
| id, source, split | string | |
| num_steps | int32 | T |
| terminated | bool | |
| state | list<tensor[D]> | T+1 steps, float32 or float64; absent where no episode has one |
| actions | list<tensor[A]> | T steps; likewise |
| rewards | list<float> | T |
| frames | large_binary | (T+1, H, W, C) uint8, zstd; absent where no episode has them |
| frame_shape | list<int32> | H, W, C |
| metrics, tags | map | |
| digest | binary(16) | of everything above; checked when the row is read |

The schema's metadata says `phaseb.kind` and `phaseb.version`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phaseb.episodes.columns import join_maps, join_ragged, split_ragged, whole_column
from phaseb.episodes.episode import Episode
from phaseb.errors import DataError

VERSION = 1
KIND, EPISODES, TRAJECTORIES = b"phaseb.kind", b"episodes", b"trajectories"
DIGEST = pa.binary(16)
_ZSTD_LEVEL = 3


def stamp_kind(table: pa.Table, kind: bytes, extra: Mapping[bytes, bytes] | None = None) -> pa.Table:
    """The table with its kind and schema version in its metadata."""
    return table.replace_schema_metadata({KIND: kind, b"phaseb.version": str(VERSION).encode(), **(extra or {})})


def check_kind(table_schema: pa.Schema, kind: bytes) -> None:
    """Refuse a table that is not ours, not of this kind, or of a later version."""
    metadata = table_schema.metadata or {}
    if metadata.get(KIND) != kind:
        found = metadata.get(KIND, b"foreign data").decode(errors="replace")
        raise DataError(f"holds {found}, not phaseb {kind.decode()}; set another path or episodes.source")
    version = metadata.get(b"phaseb.version", b"")
    if version != str(VERSION).encode():
        found_version = version.decode(errors="replace")
        raise DataError(f"has schema version {found_version!r}, this phaseb reads {VERSION}: write it again")


def hash_row(parts: Mapping[str, Any]) -> bytes:
    """16 bytes that change with the name, type, shape or any bit of any part."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(parts):
        value = parts[name]
        if isinstance(value, np.ndarray):
            state.update(array_part(name, value.dtype, value.shape))
            state.update(np.ascontiguousarray(value).data)
        else:
            state.update(text_part(name, value))
    return state.digest()


def array_part(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What of an array is hashed before its numbers."""
    return f"{name}:{dtype.str}{shape}=".encode()


def text_part(name: str, value: Any) -> bytes:
    """What is hashed of anything but an array."""
    return f"{name}={value!r}\x1f".encode()


def episodes_to_table(episodes: Sequence[Episode]) -> pa.Table:
    """One row an episode.

    Raises:
        DataError: where two of them differ in their number of state or action dimensions.
    """
    episodes = _alike(episodes)
    columns: dict[str, Any] = {
        "id": pa.array([e.id for e in episodes], pa.string()),
        "source": pa.array([e.source for e in episodes], pa.string()),
        "split": pa.array([e.split for e in episodes], pa.string()),
        "num_steps": pa.array([len(e) for e in episodes], pa.int32()),
        "terminated": pa.array([e.terminated for e in episodes], pa.bool_()),
        "rewards": _ragged("rewards", [e.rewards for e in episodes], 0),
        "metrics": join_maps([e.metrics for e in episodes], pa.float64()),
        "tags": join_maps([e.tags for e in episodes], pa.string()),
    }
    if any(e.state is not None for e in episodes):
        columns["state"] = _ragged("state", [e.state for e in episodes], 1)
    if any(e.actions is not None for e in episodes):
        columns["actions"] = _ragged("actions", [e.actions for e in episodes], 1)
    if any(e.frames is not None for e in episodes):
        columns["frames"] = pa.array([_compress(e.frames) for e in episodes], pa.large_binary())
        shapes = [None if e.frames is None else e.frames.shape[1:] for e in episodes]
        columns["frame_shape"] = pa.array(shapes, pa.list_(pa.int32()))
    columns["digest"] = pa.array([episode_digest(e) for e in episodes], DIGEST)
    return stamp_kind(pa.table(columns), EPISODES)


def table_to_episodes(table: pa.Table, max_bytes: int | None = None) -> list[Episode]:
    """The episodes of a table; arrays of numbers are read-only views of its memory.

    Args:
        table: as `episodes_to_table` makes it; with its `frames` column left out, episodes come without frames.
        max_bytes: refuse frames that would unpack to more than this in total.

    Raises:
        DataError: where the table is not ours, or a row does not match its digest.
    """
    check_kind(table.schema, EPISODES)
    table = table.combine_chunks()
    rows = table.num_rows
    whole = ("frames" in table.column_names) == ("frame_shape" in table.column_names)
    plain = table.select(["id", "source", "split", "terminated", "metrics", "tags", "digest"]).to_pylist()
    state, actions, rewards = (_rows(table, name) for name in ("state", "actions", "rewards"))
    frames: list[NDArray[np.uint8] | None] = [None] * rows
    if "frames" in table.column_names:
        frames = _decompress(table, max_bytes)
    shapes = [None] * rows if whole else table["frame_shape"].to_pylist()
    unread = [shape and tuple(shape) for shape in shapes]
    episodes = []
    for i, row in enumerate(plain):
        reward = rewards[i]
        if reward is None:
            raise DataError(f"episode {row['id']} has no rewards; import or collect it again")
        episode = Episode(
            id=row["id"],
            rewards=reward,
            state=state[i],
            frames=frames[i],
            unread_frames=unread[i],
            actions=actions[i],
            terminated=row["terminated"],
            source=row["source"],
            split=row["split"],
            metrics=dict(row["metrics"]),
            tags=dict(row["tags"]),
        )
        if whole and episode_digest(episode) != row["digest"]:
            raise DataError(f"episode {row['id']} was altered: its digest does not match; import or collect it again")
        episodes.append(episode)
    return episodes


def episode_digest(episode: Episode) -> bytes:
    """16 bytes over everything that the episode holds."""
    metrics = [(name, np.float64(value).tobytes()) for name, value in sorted(episode.metrics.items())]
    return hash_row(
        {
            "id": episode.id,
            "source": episode.source,
            "split": episode.split,
            "metrics": metrics,
            "terminated": bool(episode.terminated),
            "tags": sorted(episode.tags.items()),
            "state": episode.state,
            "actions": episode.actions,
            "rewards": episode.rewards,
            "frames": episode.frames,
        }
    )


def _alike(episodes: Sequence[Episode]) -> Sequence[Episode]:
    """All states in double precision where one is: a column has one type."""
    if not any(e.state is not None and e.state.dtype == np.float64 for e in episodes):
        return episodes
    return [e if e.state is None else replace(e, state=e.state.astype(np.float64)) for e in episodes]


def _ragged(name: str, rows: Sequence[NDArray[np.floating] | None], ndim: int) -> pa.Array:
    present = [row for row in rows if row is not None]
    sizes = {row.shape[1:] for row in present}
    if len(sizes) > 1:
        raise DataError(f"episodes differ in their {name} dimensions: {sorted(s[0] for s in sizes)}; import them apart")
    flat = np.concatenate(present) if present else np.zeros((0,) * (ndim + 1), np.float32)
    lengths = np.array([0 if row is None else len(row) for row in rows], np.int64)
    kind = pa.float64() if flat.dtype == np.float64 else pa.float32()
    return join_ragged(flat, lengths, np.array([row is None for row in rows], bool), kind)


def _rows(table: pa.Table, name: str) -> list[NDArray[np.float32] | None]:
    if name not in table.column_names:
        return [None] * table.num_rows
    return split_ragged(whole_column(table[name]))


def _compress(frames: NDArray[np.uint8] | None) -> bytes | None:
    if frames is None:
        return None
    return bytes(pa.Codec("zstd", _ZSTD_LEVEL).compress(np.ascontiguousarray(frames), asbytes=True))


def _decompress(table: pa.Table, max_bytes: int | None) -> list[NDArray[np.uint8] | None]:
    shapes, steps = table["frame_shape"].to_pylist(), table["num_steps"].to_pylist()
    wanted = [None if s is None else (n + 1, *s) for s, n in zip(shapes, steps, strict=True)]
    total = sum(int(np.prod(shape, dtype=object)) for shape in wanted if shape is not None)
    if any(shape is not None and (len(shape) != 4 or min(shape) < 1) for shape in wanted):
        raise DataError("has frames of an impossible shape; import or collect them again")
    if max_bytes is not None and total > max_bytes:
        raise DataError(f"frames unpack to {total} bytes, more than episodes.max_bytes={max_bytes}: raise it")
    codec = pa.Codec("zstd")
    frames: list[NDArray[np.uint8] | None] = []
    for blob, shape in zip(table["frames"], wanted, strict=True):
        if shape is None or not blob.is_valid:
            frames.append(None)
            continue
        raw = codec.decompress(blob.as_buffer(), decompressed_size=int(np.prod(shape)))
        frames.append(np.frombuffer(raw, np.uint8).reshape(shape))
    return frames
