"""Minari data sets: a folder with `data/`, in HDF5, Arrow or Parquet, as the library writes them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.episode_builder import SYNTHETIC, Layout, read_columns
from phaseb.episodes.formats.metadata import read_metadata
from phaseb.episodes.formats.minari_space import Leaf, check_actions, leaves
from phaseb.episodes.formats.minari_table import TableColumns
from phaseb.episodes.formats.success import reward_notes
from phaseb.episodes.inventory import Inventory, LeftOut
from phaseb.episodes.parquet_file import naming
from phaseb.episodes.recorded import RecordedEpisode
from phaseb.episodes.sources import Entry
from phaseb.episodes.state_columns import TAG
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

_SUCCESS = "infos/success"
_THREADS = 8


class Source:
    """The episodes of one data set (`episodes.path` is the folder that holds `data`).

    A state is made of the recorded space's columns, in its order and flattened as Gymnasium does, so that it is what
    the environment shows to a policy.
    """

    def __init__(self, config: EpisodesConfig) -> None:
        self._config, self._store = config, Store.at(config.path)
        self._name = self._store.root.rpartition("/")[2]
        meta = read_metadata(self._store, "Minari", "data", "metadata.json")
        with naming(self._store, "data/metadata.json"):
            if not isinstance(meta, dict) or not isinstance(meta.get("total_episodes"), int):
                raise DataError("is not of Minari; set episodes.path to the folder that holds Minari's data")
            self._total, self._format = meta["total_episodes"], meta.get("data_format", "hdf5")
            if self._format not in ("hdf5", "arrow", "parquet"):
                raise DataError(
                    f"is of Minari's format {self._format!r}, which is not read; write it as hdf5, arrow or parquet"
                )
            if self._total < 1:
                raise DataError("counts no episodes; record some, or set another episodes.path")
            index = "_index_{}" if self._format == "hdf5" else "{}"
            self._leaves = {leaf.column: leaf for leaf in leaves(meta.get("observation_space"), "observations", index)}
            if not config.columns.action:
                check_actions(leaves(meta.get("action_space"), "actions", index))
            self._state = self._choose_state()
        self._steps = meta.get("total_steps")
        self._file: Any = None
        self._rewarded: bool | None = None
        self._empty = self._list_empty()
        self._whole = sorted(set(range(self._total)) - set(self._empty))
        if not self._whole:
            raise DataError(f"{config.path} holds no episodes of a step or more; record some")

    def entries(self) -> Sequence[Entry]:
        return [(f"episode-{i:06d}", "") for i in self._whole]

    def lengths(self) -> Sequence[int] | None:
        """The mean length for every episode: the metadata have no other."""
        return [self._steps // self._total] * len(self._whole) if isinstance(self._steps, int) else None

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        return (recorded.episode() for recorded in self.recorded(indices))

    def recorded(self, indices: Sequence[int]) -> Iterator[RecordedEpisode]:
        """The same, row by row, with frames on demand."""
        for index in (self._whole[place] for place in indices):
            columns, context = self._columns(index), partial(naming, self._store, f"data/episode {index}")
            with context():
                flat = _Flattened(columns, self._leaves)
                self._check_rewards(flat)
                success = _SUCCESS if _SUCCESS in flat else ""
                layout = Layout(self._state, ("actions",), "rewards", "terminations", success=success)
                found = read_columns(f"episode-{index:06d}", flat, layout, self._config, self._name)
            yield replace(_named_by_the_environment(found, self._format), context=context)

    def _check_rewards(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Rewards that some episodes have and others lack would be read as zeros there."""
        if self._rewarded is None:
            self._rewarded = "rewards" in self._columns(self._whole[0])
        if not self._config.columns.reward and ("rewards" in columns) != self._rewarded:
            has, first = (" no", "has") if self._rewarded else ("", "lacks")
            raise DataError(
                f"has{has} column 'rewards', which the first episode {first}: copy the data set again, or set "
                "episodes.columns.reward"
            )

    def inventory(self) -> Inventory:
        """What the folder holds, and what of it is left out."""
        with naming(self._store, "data"):
            return self._count()

    def _count(self) -> Inventory:
        left, found = [LeftOut(f"episode-{index:06d}, of no steps", 1) for index in self._empty], self._found()
        extra = sorted(found - set(range(self._total)))
        if extra:
            columns = [self._columns(index) for index in extra]
            name = self._config.columns.reward or "rewards"
            rewards = [np.asarray(one[name]) if name in one else np.zeros(len(one["actions"])) for one in columns]
            left.append(
                LeftOut(
                    "episodes beyond total_episodes of metadata.json",
                    len(extra),
                    sum(map(len, rewards)),
                    float(sum(reward.sum() for reward in rewards)),
                )
            )
        wanted, rows = self._config.columns, sum(part.rows for part in left)
        used = {
            *(wanted.observation or self._state),
            *(wanted.action or ("actions",)),
            *wanted.images,
            wanted.success or _SUCCESS,
            wanted.reward or "rewards",
            wanted.terminal or "terminations",
            "truncations",
            "episode_id",
            *SYNTHETIC,
            wanted.power_w,
        }
        first = self._columns(self._whole[0])
        steps = self._steps if isinstance(self._steps, int) else None
        return Inventory(
            self._total + len(extra),
            None if steps is None else steps + rows,
            tuple(left),
            tuple(self._described(name) for name in sorted(set(first) - used)),
            reward_notes(first, wanted, "rewards", _SUCCESS),
        )

    def _described(self, column: str) -> str:
        leaf = self._leaves.get(column)
        return f"{column} (a picture: episodes.columns.images reads it)" if leaf and leaf.is_picture else column

    def _list_empty(self) -> list[int]:
        """The episodes without a step. Of tables each is a file of its own, of which the footer is read."""
        with naming(self._store, "data"):
            if self._format == "hdf5":
                action = (self._config.columns.action or ("actions",))[0]
                columns = ((index, self._columns(index)) for index in range(self._total))
                return [index for index, one in columns if action in one and not one.rows(action)]
            there = sorted(index for index in self._found() if index < self._total)
            with ThreadPoolExecutor(_THREADS) as threads:
                empty = list(threads.map(self._is_empty, there))
            return [index for index, none in zip(there, empty, strict=True) if none]

    def _is_empty(self, index: int) -> bool:
        """Whether an episode's tables have no step; of broken ones no, which is said when they are read."""
        try:
            return sum(map(self._rows, self._tables(index))) <= 1  # one row pads actions to observations
        except (DataError, OSError, pa.ArrowException):
            return False

    def _rows(self, name: str) -> int:
        """How many rows a file has."""
        with self._store.filesystem.open_input_file(self._store.path(name)) as file:
            if self._format == "parquet":
                return int(pq.read_metadata(file).num_rows)
            reader = pa.ipc.open_file(file)
            return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))

    def _found(self) -> set[int]:
        """The numbers of the episodes that there are, whatever metadata.json says."""
        if self._format == "hdf5":
            self._columns(0)
            names = [str(name).removeprefix("episode_") for name in self._file]
        else:
            names = self._store.folders("data")
        return {int(name) for name in names if name.isdigit()}

    def _choose_state(self) -> tuple[str, ...]:
        """The columns of the state where the configuration names none."""
        if self._config.columns.observation:
            return self._config.columns.observation
        if not self._leaves:
            raise DataError(
                "names no observation_space, so the order of a state is unknown: set "
                "episodes.columns.observation, in the environment's order"
            )
        seen = [leaf for leaf in self._leaves.values() if not leaf.is_picture]
        for leaf in seen:
            if not leaf.is_vector and leaf.column not in self._config.columns.images:
                what = f"a {leaf.kind} of shape {leaf.shape} {leaf.dtype}" if leaf.shape else f"a {leaf.kind}"
                raise DataError(
                    f"{leaf.column!r} is {what}, which is no vector, matrix or picture of uint8: choose "
                    "others in episodes.columns.observation"
                )
        return tuple(leaf.column for leaf in seen if leaf.is_vector)

    def _columns(self, index: int) -> Any:
        return self._hdf5(index) if self._format == "hdf5" else self._arrow(index)

    def _hdf5(self, index: int) -> Any:
        from phaseb.episodes.formats import hdf5_file

        path = f"{self._config.path.rstrip('/')}/data/main_data.hdf5"
        with hdf5_file.naming(path):
            if self._file is None:
                self._file = hdf5_file.open_file(path)
            group = hdf5_file.child(self._file, f"episode_{index}")
            if group is None:
                raise DataError(f"lacks episode_{index} of {self._total}; copy the data set again")
            return hdf5_file.GroupColumns(group, self._config.max_bytes)

    def _arrow(self, index: int) -> Any:
        with naming(self._store, f"data/{index}"):
            tables = [self._table(name) for name in self._tables(index)]
            table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
            size, limit = table.nbytes, self._config.max_bytes
            if size > limit:
                raise DataError(f"unpacks to {size} bytes, more than episodes.max_bytes={limit}: raise it")
            return TableColumns(table, {name: leaf.shape for name, leaf in self._leaves.items()})

    def _tables(self, index: int) -> list[str]:
        """The files of an episode, from the store's root."""
        folder = f"data/{index}"
        with naming(self._store, folder):
            names = self._store.names(folder, suffix=f".{self._format}")
            if not names:
                raise DataError(f"lacks its .{self._format} file; copy the data set again")
            return [f"{folder}/{name}" for name in names]

    def _table(self, name: str) -> pa.Table:
        """One file, read in this thread: episodes are small, and starting threads costs more than it gives."""
        with self._store.filesystem.open_input_file(self._store.path(name)) as file:
            if self._format == "arrow":
                return pa.ipc.open_file(file).read_all()
            with pq.ParquetFile(file, pre_buffer=False) as parquet:  # a thread of its own would read ahead
                groups = range(parquet.metadata.num_row_groups)
                size = sum(parquet.metadata.row_group(i).total_byte_size for i in groups)
                if size > self._config.max_bytes:
                    raise DataError(
                        f"unpacks to {size} bytes, more than episodes.max_bytes={self._config.max_bytes}: raise it"
                    )
                return parquet.read(use_threads=False)


class _Flattened(Mapping[str, NDArray[Any]]):
    """Columns of one episode, those of the recorded space flattened as Gymnasium does."""

    def __init__(self, columns: Mapping[str, NDArray[Any]], spaces: Mapping[str, Leaf]) -> None:
        self._columns, self._spaces = columns, spaces

    def __getitem__(self, name: str) -> NDArray[Any]:
        rows, leaf = self._columns[name], self._spaces.get(name)
        return leaf.flatten(rows) if leaf is not None and leaf.is_vector else rows

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _named_by_the_environment(episode: RecordedEpisode, data_format: str) -> RecordedEpisode:
    """The entries of a Tuple are `_index_3` in HDF5, 3 in the environment and elsewhere."""
    if data_format != "hdf5" or "_index_" not in episode.tags.get(TAG, ""):
        return episode
    return replace(episode, tags={**episode.tags, TAG: re.sub(r"\b_index_(\d+)", r"\1", episode.tags[TAG])})
