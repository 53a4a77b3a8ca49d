"""LeRobot data sets, layouts v3.0 and v2.1: Parquet rows, MP4 cameras, and `meta/` that says where each episode is."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from phaseb.config.episodes import EpisodesConfig
from phaseb.episodes.columns import whole_column
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.episode_builder import Layout, make_episode
from phaseb.episodes.parquet_file import naming, read_table
from phaseb.episodes.sources import Entry
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

_TEMPLATE = re.compile(r"([\w./-]|\{\w+(:0\d{1,2}d)?\})+")
_VERSIONS = ("v2.0", "v2.1", "v3.0")


class Source:
    """The episodes of one data set (`episodes.path` is the folder that holds `meta`)."""

    def __init__(self, config: EpisodesConfig) -> None:
        self._config, self._store = config, Store.at(config.path)
        self._name = self._store.root.rpartition("/")[2]
        with naming(self._store, "meta/info.json"):
            info = self._store.read_json("meta", "info.json")
            self._features: dict[str, Any] = dict(info["features"])
            self._fps, self._version = float(info["fps"]), str(info["codebase_version"])
            self._paths = {kind: info.get(f"{kind}_path") or "" for kind in ("data", "video")}
            self._chunk = int(info.get("chunks_size", 1000))
            if self._version not in _VERSIONS:
                raise DataError(f"is of version {self._version}; read are {', '.join(_VERSIONS)}: convert it first")
            if self._fps <= 0 or not all(_TEMPLATE.fullmatch(path) for path in self._paths.values() if path):
                raise DataError("has an impossible frame rate or path")
        self._episodes = self._list()
        self._layout = self._choose_layout()
        self._open: tuple[str, pa.Table | None] = ("", None)

    def entries(self) -> Sequence[Entry]:
        return [(f"episode-{int(row['episode_index']):06d}", "") for row in self._episodes]

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        for index in indices:
            row = self._episodes[index]
            with naming(self._store, f"episode {row['episode_index']}"):
                columns = _Rows(self, row, self._table(row))
                name = f"episode-{int(row['episode_index']):06d}"
                episode = make_episode(name, columns, self._layout, self._config, self._name)
            yield episode

    def frames(self, camera: str, row: Mapping[str, Any]) -> NDArray[np.uint8]:
        """The video of one camera over one episode."""
        from phaseb.episodes.formats.video import decode_video

        start = float(row.get(f"videos/{camera}/from_timestamp", 0.0))
        return decode_video(
            self._store, self._path("video", row, camera), start, int(row["length"]), self._fps,
            self._config.columns.image_size, self._config.max_bytes,
        )  # fmt: skip

    def is_video(self, name: str) -> bool:
        return self._features.get(name, {}).get("dtype") == "video"

    def _list(self) -> list[dict[str, Any]]:
        if self._version == "v3.0":
            rows: list[dict[str, Any]] = []
            for folder in self._store.folders("meta", "episodes"):
                for name in self._store.names("meta", "episodes", folder, suffix=".parquet"):
                    table = read_table(
                        self._store, f"meta/episodes/{folder}/{name}", lambda c: not c.startswith("stats/"),
                        self._config.max_bytes,
                    )  # fmt: skip
                    rows += table.to_pylist()
        else:
            with naming(self._store, "meta/episodes.jsonl"):
                text = self._store.read_text("meta", "episodes.jsonl")
                rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        with naming(self._store, "meta/episodes"):
            rows.sort(key=lambda row: int(row["episode_index"]))
            if not rows or any(int(row["length"]) < 1 for row in rows):
                raise DataError("lists no episodes, or some of no length")
        return rows

    def _choose_layout(self) -> Layout:
        plain = [name for name, feature in self._features.items() if feature.get("dtype") not in ("video", "image")]
        state = [name for name in plain if name == "observation.state"] or [
            name for name in plain if name.startswith("observation.") and len(self._features[name]["shape"]) == 1
        ]
        found = {name: name if name in plain else "" for name in ("next.reward", "next.done", "next.success")}
        after = tuple(f"next.{name}" for name in state)
        return Layout(
            tuple(state), ("action",), found["next.reward"] or found["next.success"], found["next.done"],
            after if all(name in plain for name in after) else (), success=found["next.success"], step_s=1 / self._fps,
        )  # fmt: skip

    def _table(self, row: Mapping[str, Any]) -> pa.Table:
        name = self._path("data", row)
        if self._open[0] != name:
            self._open = (name, read_table(self._store, name, max_bytes=self._config.max_bytes))
        table = self._open[1]
        assert table is not None
        table = table.filter(pc.equal(table["episode_index"], int(row["episode_index"])))
        if table.num_rows != int(row["length"]):
            raise DataError(f"{name} has {table.num_rows} rows of it, meta says {row['length']}")
        return table

    def _path(self, kind: str, row: Mapping[str, Any], camera: str = "") -> str:
        prefix = f"videos/{camera}" if camera else "data"
        index = int(row["episode_index"])
        return str(
            self._paths[kind].format(
                episode_index=index, episode_chunk=index // self._chunk, video_key=camera,
                chunk_index=int(row.get(f"{prefix}/chunk_index") or 0),
                file_index=int(row.get(f"{prefix}/file_index") or 0),
            )
        )  # fmt: skip


class _Rows(Mapping[str, NDArray[Any]]):
    """The columns of one episode: of its Parquet rows, and of its cameras' videos."""

    def __init__(self, source: Source, row: Mapping[str, Any], table: pa.Table) -> None:
        self._source, self._row, self._table = source, row, table
        self._names = [*table.column_names, *(n for n in source._features if source.is_video(n))]

    def __getitem__(self, name: str) -> NDArray[Any]:
        if self._source.is_video(name):
            return self._source.frames(name, self._row)
        array = whole_column(self._table[name])
        if pa.types.is_struct(array.type):  # an image kept as a file within the row
            blobs = np.empty(len(array), object)
            blobs[:] = [cell["bytes"] for cell in array.to_pylist()]
            return blobs
        if pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
            return np.array(array.to_pylist())
        return np.asarray(array.to_numpy(zero_copy_only=False))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
