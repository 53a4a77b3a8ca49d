"""Minari data sets: a folder with `data/`, in HDF5, Arrow or Parquet, as the library writes them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phaseb.config.episodes import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.episode_builder import Layout, make_episode
from phaseb.episodes.parquet_file import naming
from phaseb.episodes.sources import Entry
from phaseb.errors import DataError
from phaseb.runtime.storage import Store


class Source:
    """The episodes of one data set (`episodes.path` is the folder that holds `data`)."""

    def __init__(self, config: EpisodesConfig) -> None:
        self._config, self._store = config, Store.at(config.path)
        self._name = self._store.root.rpartition("/")[2]
        meta = self._store.read_json("data", "metadata.json")
        if not isinstance(meta, dict) or not isinstance(meta.get("total_episodes"), int):
            raise DataError(f"{self._store.path('data', 'metadata.json')} is not of Minari")
        self._total, self._format = meta["total_episodes"], meta.get("data_format", "hdf5")
        if self._format not in ("hdf5", "arrow", "parquet"):
            raise DataError(f"{config.path}: Minari's format {self._format!r} is not read")
        if self._total < 1:
            raise DataError(f"{config.path} holds no episodes")
        self._shapes = dict(_shapes("observations", _space(meta.get("observation_space"))))
        self._file: Any = None

    def entries(self) -> Sequence[Entry]:
        return [(f"episode-{i:06d}", "") for i in range(self._total)]

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        for index in indices:
            columns = self._hdf5(index) if self._format == "hdf5" else self._arrow(index)
            with naming(self._store, f"data/episode {index}"):
                layout = Layout(tuple(sorted(columns.vectors("observations"))), ("actions",), "rewards", "terminations")
                episode = make_episode(f"episode-{index:06d}", columns, layout, self._config, self._name)
            yield episode

    def _hdf5(self, index: int) -> Any:
        from phaseb.episodes.formats import hdf5_file

        path = f"{self._config.path.rstrip('/')}/data/main_data.hdf5"
        with hdf5_file.naming(path):
            if self._file is None:
                self._file = hdf5_file.open_file(path)
            group = hdf5_file.child(self._file, f"episode_{index}")
            if group is None:
                raise DataError(f"lacks episode_{index} of {self._total}")
            return hdf5_file.GroupColumns(group, self._config.max_bytes)

    def _arrow(self, index: int) -> Any:
        folder = f"data/{index}"
        with naming(self._store, folder):
            names = self._store.names(folder, suffix=f".{self._format}")
            if not names:
                raise DataError(f"lacks its .{self._format} file")
            tables = [self._table(f"{folder}/{name}") for name in names]
            table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
            size, limit = table.nbytes, self._config.max_bytes
            if size > limit:
                raise DataError(f"unpacks to {size} bytes, more than episodes.max_bytes={limit}")
            return _TableColumns(table, self._shapes)

    def _table(self, name: str) -> pa.Table:
        """One file, read in this thread: episodes are small, and starting threads costs more than it gives."""
        with self._store.filesystem.open_input_file(self._store.path(name)) as file:
            if self._format == "arrow":
                return pa.ipc.open_file(file).read_all()
            with pq.ParquetFile(file, pre_buffer=False) as parquet:  # a thread of its own would read ahead
                groups = range(parquet.metadata.num_row_groups)
                size = sum(parquet.metadata.row_group(i).total_byte_size for i in groups)
                if size > self._config.max_bytes:
                    raise DataError(f"unpacks to {size} bytes, more than episodes.max_bytes={self._config.max_bytes}")
                return parquet.read(use_threads=False)


class _TableColumns(Mapping[str, NDArray[Any]]):
    """Minari's Arrow columns: structs by path, and steps without the row that pads them to the observations."""

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
        width = array.type.list_size if pa.types.is_fixed_size_list(array.type) else None
        values = (array.flatten() if width else array).to_numpy(zero_copy_only=False)
        rows = values.reshape(-1, *self._shapes.get(name, (width,))) if width else values
        return rows if name.split("/")[0] in ("observations", "infos") else rows[:-1]

    def __contains__(self, name: object) -> bool:
        return name in self._arrays  # a Mapping's own way would build the column to see whether it is there

    def vectors(self, below: str) -> list[str]:
        """The columns of one value or vector of numbers a row that are, or lie below, a name."""
        kinds = {name: getattr(array.type, "value_type", array.type) for name, array in self._arrays.items()
                 if name.split("/")[0] == below}  # fmt: skip
        numbers = [n for n, kind in kinds.items() if pa.types.is_floating(kind) or pa.types.is_integer(kind)]
        return [name for name in numbers if len(self._shapes.get(name, ())) <= 1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _space(text: object) -> dict[str, Any]:
    """The description of a Gymnasium space, which Minari keeps as JSON within JSON."""
    try:
        space = json.loads(text) if isinstance(text, str) else {}
    except json.JSONDecodeError:
        return {}
    return space if isinstance(space, dict) else {}


def _shapes(name: str, space: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The shapes of the boxes in a space, by the path of their column."""
    parts = space.get("subspaces")
    if isinstance(parts, dict):
        for key, part in parts.items():
            yield from _shapes(f"{name}/{key}", part)
    elif isinstance(space.get("shape"), list):
        yield name, tuple(int(side) for side in space["shape"])
