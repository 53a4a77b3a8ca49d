"""Trajectories as Arrow tables, by the same conventions as episodes: one row a trajectory, padding left out.

| column | type | |
| --- | --- | --- |
| id, split | string | |
| num_steps | int32 | T |
| z, actions | list<tensor> | T+1 and T steps |
| rewards, terminals | list<float> | T |
| uncertainty, trust, weights | list<float> | T, or null |
| start_step | int64 or null | |
| episode_trust | float or null | |
| metrics, lineage | map | |
| digest | binary(16) | of everything above |
"""

import hashlib
import struct
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phaseb.episodes.columns import Floats, flatten_ragged, join_maps, join_ragged, whole_column
from phaseb.episodes.schema import DIGEST, TRAJECTORIES, array_part, check_kind, stamp_kind, text_part
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError

_DOUBLE = struct.Struct("<d").pack
_OPTIONAL_STEPS = ("uncertainty", "trust", "weights")


def trajectories_to_table(trajectories: Trajectories) -> pa.Table:
    """One row a trajectory; what lies beyond its length is padding and is not kept."""
    t, lengths, mask = trajectories, trajectories.lengths.astype(np.int64), trajectories.mask
    if len(t) and (lengths.min() < 1 or lengths.max() > t.rewards.shape[1]):
        raise DataError(f"lengths must be 1 to {t.rewards.shape[1]}, found {lengths.min()} to {lengths.max()}")
    observed = np.arange(t.z.shape[1])[None] <= lengths[:, None]
    rows = range(len(t))
    columns: dict[str, Any] = {
        "id": pa.array(t.ids, pa.string()),
        "split": pa.array(t.splits, pa.string()),
        "num_steps": pa.array(lengths, pa.int32()),
        "z": join_ragged(t.z[observed], lengths + 1),
        "actions": join_ragged(t.actions[mask], lengths),
        "rewards": join_ragged(t.rewards[mask], lengths),
        "terminals": join_ragged(t.terminals[mask], lengths),
        "start_step": _scalars(t.start_step, len(t), pa.int64()),
        "episode_trust": _scalars(t.episode_trust, len(t), pa.float32()),
        "metrics": join_maps([{n: float(v[i]) for n, v in t.metrics.items()} for i in rows], pa.float64()),
        "lineage": join_maps([{n: v[i] for n, v in t.lineage.items()} for i in rows], pa.string()),
    }
    for name in _OPTIONAL_STEPS:
        values = getattr(t, name)
        columns[name] = (
            pa.nulls(len(t), pa.list_(pa.float32())) if values is None else join_ragged(values[mask], lengths)
        )
    columns["digest"] = pa.array(_digests(columns), DIGEST)
    return stamp_kind(pa.table(columns), TRAJECTORIES)


def check_rows(table: pa.Table) -> None:
    """See that no row of a table of trajectories was altered.

    Raises:
        DataError: where the table is not ours, or a row does not match its digest.
    """
    check_kind(table.schema, TRAJECTORIES)
    if _digests(_columns(table)) != table["digest"].to_pylist():
        raise DataError("was altered: a row's digest does not match; make it again")


def table_to_trajectories(table: pa.Table) -> Trajectories:
    """The trajectories of a table, padded to the longest of them; see `check_rows`, which comes first.

    Raises:
        DataError: where the table is not ours.
    """
    check_kind(table.schema, TRAJECTORIES)
    columns = _columns(table)
    lengths = columns["num_steps"].to_numpy().astype(np.int64)
    steps = int(lengths.max(initial=0))
    plain = {name: columns[name].to_pylist() for name in ("id", "split", "metrics", "lineage")}
    optional = {
        n: None if columns[n].null_count or not len(lengths) else _pad(columns[n], lengths, steps, 0)
        for n in _OPTIONAL_STEPS
    }
    z = _pad(columns["z"], lengths, steps, 1)
    actions, rewards, terminals = (_pad(columns[n], lengths, steps, 0) for n in ("actions", "rewards", "terminals"))
    return Trajectories(
        z=z,
        actions=actions,
        rewards=rewards,
        terminals=terminals,
        lengths=lengths,
        ids=tuple(plain["id"]),
        splits=tuple(plain["split"]),
        metrics={n: np.array(v, np.float64) for n, v in _transpose(plain["metrics"], np.nan).items()},
        lineage={n: tuple(v) for n, v in _transpose(plain["lineage"], "").items()},
        start_step=_numbers(columns["start_step"]),
        episode_trust=_numbers(columns["episode_trust"]),
        **optional,
    )


def _columns(table: pa.Table) -> dict[str, Any]:
    whole = table.combine_chunks()
    return {name: whole_column(whole[name]) for name in whole.column_names}


def _digests(columns: dict[str, Any]) -> list[bytes]:
    """The digest of every row, from its columns: what `hash_row` gives for the row, column by column to be quick."""
    parts: list[list[Any]] = []
    for name in sorted(columns):
        if name == "digest":
            continue
        if _is_ragged(columns[name].type):
            parts += _ragged_parts(name, columns[name])
        else:
            values = columns[name].to_pylist()
            if name in ("metrics", "episode_trust"):
                values = [_bits(value) for value in values]
            parts.append([text_part(name, value) for value in values])
    return [hashlib.blake2b(b"".join(row), digest_size=16).digest() for row in zip(*parts, strict=True)]


def _ragged_parts(name: str, column: pa.Array) -> tuple[list[Any], list[Any]]:
    """Of every row its shape and its numbers, as `hash_row` takes them; of a null one that it is none."""
    flat, offsets = flatten_ragged(column)
    valid, at = column.is_valid().to_numpy(zero_copy_only=False).tolist(), offsets.tolist()
    step = flat.itemsize * int(np.prod(flat.shape[1:]))
    numbers = np.ascontiguousarray(flat).data.cast("B") if flat.size else memoryview(b"")
    shapes = {n: array_part(name, flat.dtype, (n, *flat.shape[1:])) for n in set(np.diff(offsets).tolist())}
    none = text_part(name, None)
    spans = [(at[i], at[i + 1]) if ok else None for i, ok in enumerate(valid)]
    heads = [none if span is None else shapes[span[1] - span[0]] for span in spans]
    return heads, [b"" if span is None else numbers[span[0] * step : span[1] * step] for span in spans]


def _is_ragged(kind: pa.DataType) -> bool:
    return kind == pa.list_(pa.float32()) or (
        pa.types.is_list(kind) and isinstance(kind.value_type, pa.FixedShapeTensorType)
    )


def _bits(value: Any) -> Any:
    """A value whose text is the same for the same bits, NaN too."""
    if isinstance(value, list):
        return [(name, _DOUBLE(number)) for name, number in value]
    return None if value is None else _DOUBLE(value)


def _scalars(values: NDArray[Any] | None, rows: int, kind: pa.DataType) -> pa.Array:
    return pa.nulls(rows, kind) if values is None else pa.array(values, kind)


def _numbers(column: pa.Array) -> NDArray[Any] | None:
    return None if column.null_count or not len(column) else column.to_numpy()


def _pad(column: pa.Array, lengths: NDArray[np.int64], steps: int, extra: int) -> Floats:
    """(N, steps + extra, …): rows padded by zeros, or where `extra` is 1 by their last step."""
    flat, offsets = flatten_ragged(column)
    if column.null_count or (np.diff(offsets) != lengths + extra).any():
        raise DataError("a trajectory's columns differ in length")
    if (lengths == steps).all() and len(flat):
        return flat.reshape(len(lengths), steps + extra, *flat.shape[1:]).copy()
    at = np.arange(steps + extra)[None]
    inside = at < (lengths + extra)[:, None]
    if not len(flat):
        return np.zeros((len(lengths), steps + extra, *flat.shape[1:]), np.float32)
    padded = flat[offsets[:-1, None] + np.minimum(at, (lengths + extra - 1)[:, None])]
    if not extra:
        padded[~inside] = 0
    return padded


def _transpose(rows: list[list[tuple[str, Any]]], missing: Any) -> dict[str, list[Any]]:
    names = sorted({name for row in rows for name, _ in row})
    found = [dict(row) for row in rows]
    return {name: [row.get(name, missing) for row in found] for name in names}
