"""LeRobot data sets, layouts v3.0 and v2.1: Parquet rows, MP4 cameras, and `meta/` that says where each episode is."""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import TASK_TAG, Episode
from phaseb.episodes.formats.episode_builder import SYNTHETIC, Layout, read_columns
from phaseb.episodes.formats.lerobot_rows import EpisodeRows, VideoSpan, entry_names, is_video, picture_size
from phaseb.episodes.formats.lerobot_tasks import check_rows, read_task_table, task_of_row, unused
from phaseb.episodes.formats.metadata import read_metadata
from phaseb.episodes.formats.success import reward_notes
from phaseb.episodes.inventory import Inventory, LeftOut
from phaseb.episodes.parquet_file import naming, read_table
from phaseb.episodes.recorded import RecordedEpisode, Rows
from phaseb.episodes.sources import Entry
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

_TEMPLATE = re.compile(r"([\w./-]|\{\w+(:0\d{1,2}d)?\})+")
_VERSIONS = ("v2.0", "v2.1", "v3.0")
_STATE = ("observation.state", "observation.environment_state")
_MARKS = ("next.reward", "next.terminated", "next.truncated", "next.done", "next.success")
_SUCCESS = "success"  # of an episode, in meta/episodes
_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


class Source:
    """The episodes of one data set (`episodes.path` is the folder that holds `meta`).

    A state is made of `observation.state` and `observation.environment_state`, in the order of `meta/info.json`; where
    there is neither, of all vectors called `observation.*`. `next.terminated` marks an end. Where only `next.done` is
    recorded, it is a time limit where `next.truncated` says so, where success is recorded and never set, or after as
    many rows as the longest episodes have. Success is `next.success`, or `success` of an episode in `meta/episodes`.
    """

    def __init__(self, config: EpisodesConfig) -> None:
        self._config, self._store = config, Store.at(config.path)
        self._name = self._store.root.rpartition("/")[2]
        with naming(self._store, "meta/info.json"):
            info = read_metadata(self._store, "LeRobot", "meta", "info.json")
            self.features: Mapping[str, Any] = dict(info["features"])
            self._fps, self._version = float(info["fps"]), str(info["codebase_version"])
            self._paths = {kind: info.get(f"{kind}_path") or "" for kind in ("data", "video")}
            self._chunk = int(info.get("chunks_size", 1000))
            self._counted = int(info.get("total_episodes") or 0), int(info.get("total_frames") or 0)
            if self._version not in _VERSIONS:
                raise DataError(f"is of version {self._version}; read are {', '.join(_VERSIONS)}: convert it first")
            given = [path for path in self._paths.values() if path]
            if self._fps <= 0 or not self._paths["data"] or not all(map(_TEMPLATE.fullmatch, given)):
                raise DataError("has an impossible frame rate or path; write the data set again with LeRobot")
        self._episodes, self._short = self._list(), list[dict[str, Any]]()
        with naming(self._store, "meta/info.json"):
            self._layout = self._choose_layout()
        least = 1 if self._layout.follows(config) else 2
        self._short = [row for row in self._episodes if int(row["length"]) < least]
        self._episodes = [row for row in self._episodes if int(row["length"]) >= least]
        if not self._episodes:
            raise DataError(
                f"{config.path} holds no episodes of two rows or more; record some, or set another episodes.path"
            )
        self._open: tuple[str, pa.Table | None] = ("", None)
        self._texts = read_task_table(self._store, config.max_bytes)

    def entries(self) -> Sequence[Entry]:
        return [(_name_of(row), "") for row in self._episodes]

    def lengths(self) -> Sequence[int]:
        return [int(row["length"]) for row in self._episodes]

    def tasks(self) -> Sequence[str]:
        return [self._task(row) for row in self._episodes]

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        return (recorded.episode() for recorded in self.recorded(indices))

    def recorded(self, indices: Sequence[int]) -> Iterator[RecordedEpisode]:
        """The same, row by row, with frames on demand."""
        for index in indices:
            row = self._episodes[index]
            context = partial(naming, self._store, f"episode {row['episode_index']}")
            task = self._task(row)
            with context():
                table = self._table(row)
                check_rows(table, self._texts, task)
                columns = EpisodeRows(self, row, table, self._fps)
                promised = self._layout.reward
                if promised and promised not in columns and not self._config.columns.reward:
                    raise DataError(f"has no column {promised!r}, which meta/info.json lists: copy the data set again")
                found = read_columns(_name_of(row), columns, self._layout, self._config, self._name)
            tags = {**found.tags, **({TASK_TAG: task} if task else {})}
            yield replace(found, context=context, tags=tags)

    def inventory(self) -> Inventory:
        """What the data set holds by its own count, and what of it is left out."""
        wanted, layout, left, notes = self._config.columns, self._layout, list[LeftOut](), list[str]()
        for row in self._short:
            if not int(row["length"]):
                left.append(LeftOut(f"{_name_of(row)}, of no rows", 1))
                continue
            with naming(self._store, f"episode {row['episode_index']}"):
                columns, reward = EpisodeRows(self, row, self._table(row), self._fps), wanted.reward or layout.reward
                lost = float(columns[reward].sum()) if reward in columns else 0.0
            left.append(LeftOut(f"{_name_of(row)}, of one row that no observation follows", 1, 1, lost))
        if not layout.follows(self._config):
            left.append(
                LeftOut(
                    "the last action of each episode: no observation follows it, so its reward is added to "
                    "the step before",
                    rows=len(self._episodes),
                )
            )
        if layout.done and not (wanted.terminal or layout.terminal):
            notes.append(self._on_done())
        early = self._num_early_marks(wanted.terminal or layout.terminal or layout.done)
        if early:
            name = wanted.terminal or layout.terminal or layout.done
            notes.append(f"{name} is set in {early} rows before the last of their episode, where it is ignored")
        notes += reward_notes((*self.features, *self._episodes[0]), wanted, layout.reward, layout.success)
        idle = unused(self._texts, self.tasks())
        notes += [idle] if idle else []
        used = {
            *(wanted.observation or layout.observation),
            *(wanted.action or layout.action),
            *wanted.images,
            wanted.reward or layout.reward,
            wanted.success or layout.success,
            wanted.power_w,
            *_BOOKKEEPING,
            *SYNTHETIC,
            wanted.terminal or layout.terminal or layout.done,
            layout.truncated,
            *layout.next_observation,
        }
        listed = len(self._episodes) + len(self._short)
        rows = sum(int(row["length"]) for row in (*self._episodes, *self._short))
        return Inventory(
            max(listed, self._counted[0]),
            max(rows, self._counted[1]),
            tuple(left),
            tuple(name for name in self.features if name not in used),
            tuple(notes),
        )

    def frames(
        self, camera: str, row: Mapping[str, Any], first_s: float, kept: Rows | None = None
    ) -> NDArray[np.uint8]:
        """The video of one camera over one episode whose first row is at `first_s` of it: all rows, or those kept."""
        from phaseb.episodes.formats.video import decode_video

        start = self._begin(camera, row) + first_s
        return decode_video(
            self._store,
            self._path("video", row, camera),
            start,
            int(row["length"]),
            self._fps,
            self._config.columns.frame_side,
            self._config.max_bytes,
            picture_size(camera, self.features[camera]),
            alone=self._version != "v3.0",
            kept=kept,
        )

    def cameras(self) -> dict[str, str]:
        """Every camera of the data set, and how it is kept: `video 480x640 at 50 Hz`."""
        kinds = {name: str(f.get("dtype")) for name, f in self.features.items() if f.get("dtype") in ("video", "image")}
        sides = {name: "x".join(str(side) for side in self.features[name].get("shape") or ()) for name in kinds}
        return {name: f"{kind} {sides[name]} at {self._fps:g} Hz" for name, kind in kinds.items()}

    def videos(self) -> dict[str, str]:
        """The cameras that are kept as videos, likewise."""
        return {name: text for name, text in self.cameras().items() if is_video(self.features[name])}

    def video(self, camera: str, index: int) -> VideoSpan:
        """Where the frames of a camera over the episode at a position of `entries` lie."""
        row = self._episodes[index]
        start = self._begin(camera, row)
        return VideoSpan(self._store, self._path("video", row, camera), start, int(row["length"]), self._fps)

    def _begin(self, camera: str, row: Mapping[str, Any]) -> float:
        """The time of an episode's first frame in its file, s: before layout v3.0 each file holds one episode."""
        begin = row.get(f"videos/{camera}/from_timestamp") if self._version == "v3.0" else 0.0
        if begin is None or not math.isfinite(begin):
            raise DataError(
                f"camera {camera!r} has no video of it, from 0.000 s on: record it again, or leave the camera out"
            )
        return float(begin)

    def _list(self) -> list[dict[str, Any]]:
        if self._version == "v3.0":
            rows: list[dict[str, Any]] = []
            for folder in self._store.folders("meta", "episodes"):
                for name in self._store.names("meta", "episodes", folder, suffix=".parquet"):
                    table = read_table(
                        self._store,
                        f"meta/episodes/{folder}/{name}",
                        lambda c: not c.startswith("stats/"),
                        self._config.max_bytes,
                    )
                    rows += table.to_pylist()
        else:
            with naming(self._store, "meta/episodes.jsonl"):
                text = self._store.read_text("meta", "episodes.jsonl")
                rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        with naming(self._store, "meta/episodes"):
            rows.sort(key=lambda row: int(row["episode_index"]))
            if not rows or any(int(row["length"]) < 0 for row in rows):
                raise DataError(
                    "lists no episodes, or some of negative length; record some, or write the data set again"
                )
            for row, next_row in itertools.pairwise(rows):
                if int(row["episode_index"]) == int(next_row["episode_index"]):
                    raise DataError(f"lists episode {row['episode_index']} twice; write the data set again")
        return rows

    def _num_early_marks(self, name: str) -> int:
        """Rows that are marked as an end though their episode goes on."""
        if name not in self.features:
            return 0
        count = 0
        for file in dict.fromkeys(self._path("data", row) for row in self._episodes):
            table = read_table(self._store, file, lambda c: c in ("episode_index", name), self._config.max_bytes)
            episode = table["episode_index"].to_numpy()
            marked = np.asarray(table[name].to_numpy())
            goes_on = episode[1:] == episode[:-1]
            if marked.dtype.kind in "fiub":
                count += int((marked[:-1].astype(bool) & goes_on).sum())
        return count

    def _on_done(self) -> str:
        """How ends are told from time limits, in words."""
        layout = self._layout
        if layout.truncated:
            limits = f"where {layout.truncated} is set"
        elif self._config.columns.success or layout.success:
            limits = f"where {self._config.columns.success or layout.success} is never set"
        elif layout.limit:
            limits = f"after {layout.limit} rows, the most of any episode"
        else:
            limits = "nowhere"
        return (
            f"{layout.done} is taken as a time limit {limits}, elsewhere as an end "
            f"(episodes.columns.terminal={layout.done} takes all as ends)"
        )

    def _choose_layout(self) -> Layout:
        plain = [name for name, feature in self.features.items() if feature.get("dtype") not in ("video", "image")]
        state = [name for name in plain if name in _STATE and not _is_copy(self.features[name])] or [
            name
            for name in plain
            if name.startswith("observation.")
            and len(self.features[name]["shape"]) == 1
            and self.features[name]["dtype"] != "string"
        ]
        found = {name: name if name in plain else "" for name in _MARKS}
        after = tuple(f"next.{name}" for name in state)
        return Layout(
            tuple(state),
            ("action",),
            found["next.reward"],
            found["next.terminated"],
            after if all(name in plain for name in after) else (),
            success=found["next.success"] or (_SUCCESS if all(_SUCCESS in row for row in self._episodes) else ""),
            step_s=1 / self._fps,
            entries={name: entry_names(self.features[name]) for name in state},
            done=found["next.done"],
            truncated=found["next.truncated"],
            limit=_time_limit(self._episodes),
        )

    def _table(self, row: Mapping[str, Any]) -> pa.Table:
        name = self._path("data", row)
        if self._open[0] != name:
            if not self._store.exists(name):
                raise DataError(f"lacks its rows, {name}: copy the data set again")
            self._open = (name, read_table(self._store, name, max_bytes=self._config.max_bytes))
            known = pa.array([int(one["episode_index"]) for one in (*self._episodes, *self._short)], pa.int64())
            rows = self._open[1]["episode_index"]
            unlisted = rows.filter(pc.invert(pc.is_in(rows.cast(pa.int64()), known)))
            if len(unlisted):
                raise DataError(
                    f"{name} has {len(unlisted)} rows of episode {unlisted[0]}, which meta does not list: "
                    "list it or delete the rows"
                )
        table = self._open[1]
        assert table is not None
        table = table.filter(pc.equal(table["episode_index"], int(row["episode_index"])))
        if table.num_rows != int(row["length"]):
            raise DataError(f"{name} has {table.num_rows} rows of it, meta says {row['length']}; write it again")
        return table

    def _task(self, row: Mapping[str, Any]) -> str:
        with naming(self._store, f"episode {row['episode_index']}"):
            return task_of_row(row)

    def _path(self, kind: str, row: Mapping[str, Any], camera: str = "") -> str:
        prefix = f"videos/{camera}" if camera else "data"
        index = int(row["episode_index"])
        return str(
            self._paths[kind].format(
                episode_index=index,
                episode_chunk=index // self._chunk,
                video_key=camera,
                chunk_index=int(row.get(f"{prefix}/chunk_index") or 0),
                file_index=int(row.get(f"{prefix}/file_index") or 0),
            )
        )


def _name_of(row: Mapping[str, Any]) -> str:
    return f"episode-{int(row['episode_index']):06d}"


def _is_copy(feature: Mapping[str, Any]) -> bool:
    """Whether a column only repeats another one, as exports of phaseb without cameras say."""
    return bool((feature.get("info") or {}).get("copy_of"))


def _time_limit(rows: Sequence[Mapping[str, Any]]) -> int:
    """The length that the longest episodes share; 0 where one alone is the longest."""
    lengths = [int(row["length"]) for row in rows]
    longest = max(lengths)
    return longest if lengths.count(longest) > 1 else 0
