"""The columns of one episode of Minari's Arrow and Parquet storage."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phaseb.errors import DataError


class TableColumns(Mapping[str, NDArray[Any]]):
    """Minari's Arrow columns: structs by path, and steps without the row that pads them to the observations.

    Args:
        table: of one episode.
        shapes: of a row of the columns that have more than one dimension.
    """

    def __init__(self, table: pa.Table, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self._arrays: dict[str, pa.Array] = {}
        for name in table.column_names:
            self._flatten(name, table[name].combine_chunks())

    def _flatten(self, name: str, array: pa.Array) -> None:
        if pa.types.is_struct(array.type):
            for i in range(array.type.num_fields):
                self._flatten(f"{name}/{array.type.field(i).name}", array.field(i))
        else:
            self._arrays[name] = array

    def __getitem__(self, name: str) -> NDArray[Any]:
        array = self._arrays[name]
        if pa.types.is_binary(array.type):
            blobs = np.empty(len(array), object)
            blobs[:] = array.to_pylist()
            return blobs
        if array.null_count:
            raise DataError(f"column {name!r} has {array.null_count} empty rows; fill or drop them")
        width = array.type.list_size if pa.types.is_fixed_size_list(array.type) else None
        values = (array.flatten() if width else array).to_numpy(zero_copy_only=False)
        rows = values.reshape(len(array), *self._shape(name, width)) if width else values
        return rows if name.split("/")[0] in ("observations", "infos") else rows[:-1]

    def __contains__(self, name: object) -> bool:
        return name in self._arrays  # a Mapping's own way would build the column to see whether it is there

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def _shape(self, name: str, width: int) -> tuple[int, ...]:
        shape = self._shapes.get(name, (width,))
        if math.prod(shape) != width:
            raise DataError(
                f"column {name!r} has {width} numbers a row, metadata.json says shape {shape}: write the "
                "data set again with Minari"
            )
        return shape
