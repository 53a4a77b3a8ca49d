"""Arrow columns of ragged tensors: `list<fixed_shape_tensor>`, one list a row, one tensor a step.

Both pyarrow and Ray Data read and map these without copying; other readers see lists of lists of floats.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phaseb.errors import DataError

Floats = NDArray[np.float32]
TYPES = {pa.float32(): np.float32, pa.float64(): np.float64}


def join_ragged(
    flat: NDArray[np.floating],
    lengths: NDArray[np.int64],
    missing: NDArray[np.bool_] | None = None,
    kind: pa.DataType = pa.float32(),  # noqa: B008 (immutable)
) -> pa.Array:
    """A column of rows of `lengths` steps out of all their steps one after another.

    Args:
        flat: (sum of lengths, size), or (sum of lengths,) for one number a step.
        lengths: (N,), zero where the row is missing.
        missing: (N,) true where the row is null.
        kind: of the numbers: float32 or float64.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise DataError(f"{offsets[-1]} steps do not fit one shard; lower episodes.rows_per_shard")
    values = pa.array(np.ascontiguousarray(flat, TYPES[kind]).reshape(-1))
    if flat.ndim == 2:
        if flat.shape[1] == 0:
            raise DataError("vectors of no values cannot be written")
        steps = pa.FixedSizeListArray.from_arrays(values, flat.shape[1])
        values = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(kind, [flat.shape[1]]), steps)
    mask = None if missing is None else pa.array(missing)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=mask)


def split_ragged(column: pa.Array) -> list[Floats | None]:
    """The rows of a column made by `join_ragged`, as read-only views; None where null."""
    flat, offsets = flatten_ragged(column)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    return [flat[offsets[i] : offsets[i + 1]] if present[i] else None for i in range(len(column))]


def flatten_ragged(column: pa.Array) -> tuple[Floats, NDArray[np.int64]]:
    """All steps of a column one after another, and the (N+1,) offsets of its rows in them."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    values, size = column.values, None
    if isinstance(values, pa.ExtensionArray):
        size = values.type.shape[0]
        if values.storage.null_count:
            raise DataError("a column of tensors has empty steps")
        values = values.storage.flatten()
    if values.null_count or values.type not in TYPES:
        raise DataError(f"a column of tensors holds {values.type} with {values.null_count} empty values, wanted float")
    flat = values.to_numpy(zero_copy_only=True)
    return (flat if size is None else flat.reshape(-1, size)), offsets


def join_maps(rows: Sequence[Mapping[str, float]] | Sequence[Mapping[str, str]], value: pa.DataType) -> pa.Array:
    """A `map<string, value>` column, its keys sorted."""
    return pa.array([sorted(row.items()) for row in rows], pa.map_(pa.string(), value))


def whole_column(column: pa.ChunkedArray) -> pa.Array:
    """A column of a table as one array."""
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.nulls(0, column.type)])
