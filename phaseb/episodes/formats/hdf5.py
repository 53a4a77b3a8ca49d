"""HDF5 data sets of two layouts, told apart by what the file holds.

- D4RL: `observations`, `actions`, `rewards`, `terminals` (M, …) one after another, cut at terminals and `timeouts`;
  `next_observations` where it has them. See `d4rl`.
- robomimic: groups `data/demo_*` of `actions`, `obs/*` and maybe `rewards`, `dones`, `success`, `next_obs/*`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import h5py

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.d4rl import cut_flat, flat_layout
from phaseb.episodes.formats.episode_builder import Layout, read_columns
from phaseb.episodes.formats.hdf5_file import GroupColumns, child, naming, open_file
from phaseb.episodes.formats.success import NO_REWARDS, reward_notes
from phaseb.episodes.inventory import Inventory, LeftOut, listed
from phaseb.episodes.recorded import RecordedEpisode
from phaseb.episodes.sources import Entry
from phaseb.errors import DataError

_NO_SUCCESSOR = "the last action of each episode: no observation follows it, so its reward is added to the step before"


class Source:
    """The episodes of one HDF5 file."""

    def __init__(self, config: EpisodesConfig) -> None:
        self._config = config
        with naming(config.path):
            self._file = open_file(config.path)
            demos = child(self._file, "data")
            self._is_flat, self._observed = False, tuple[str, ...]()
            if isinstance(demos, h5py.Group):
                self._list_demos(demos)
            elif isinstance(child(self._file, "actions"), h5py.Dataset):
                self._is_flat = True
                self._flat = cut_flat(GroupColumns(self._file, config.max_bytes), config)
                self._spans = self._flat.spans
            else:
                raise DataError(
                    f"is neither of D4RL's layout nor of robomimic's; it holds {sorted(self._file)[:9]}: "
                    "write one of them, or choose another episodes.source"
                )
            if not self._spans:
                raise DataError("holds no episodes of two rows or more; record some, or set another episodes.path")

    def entries(self) -> Sequence[Entry]:
        return [(name, "") for name, _, _ in self._spans]

    def lengths(self) -> Sequence[int]:
        """Rows of each trajectory or demonstration."""
        action = self._action
        with naming(self._config.path):
            return [self._demo(n).rows(action) if last is None else last - first for n, first, last in self._spans]

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        return (recorded.episode() for recorded in self.recorded(indices))

    def recorded(self, indices: Sequence[int]) -> Iterator[RecordedEpisode]:
        """The same, row by row, with frames on demand."""
        for index in indices:
            name, first, last = self._spans[index]
            context = partial(naming, self._config.path, name)
            with context():
                group = self._file if last is not None else child(self._file, f"data/{name}")
                columns = GroupColumns(group, self._config.max_bytes, first, last)
                layout = flat_layout(columns) if last is not None else self._like_the_first(name, _demo_layout(columns))
                found = read_columns(name, columns, layout, self._config, self._config.path.rpartition("/")[2])
            yield replace(found, context=context)

    def inventory(self) -> Inventory:
        """What the file holds, and what of it is left out."""
        with naming(self._config.path):
            if self._is_flat:
                return self._flat.inventory(self._config)
            left, rows, columns = list(self._short), sum(part.rows for part in self._short), set[str]()
            without, without_rewards, inside, wanted, notes = 0, 0, 0, self._config.columns, dict[str, None]()
            for name, _, _ in self._spans:
                demo = self._demo(name)
                layout = _demo_layout(demo)
                action = wanted.action or layout.action
                used = {
                    *(wanted.observation or layout.observation),
                    *action,
                    wanted.reward or layout.reward,
                    wanted.terminal or layout.terminal,
                    *layout.next_observation,
                    *wanted.images,
                    wanted.success or layout.success,
                    wanted.power_w,
                }
                columns |= set(demo) - used
                origin = reward_notes(demo, wanted, layout.reward, layout.success)
                without_rewards += NO_REWARDS in origin
                notes |= dict.fromkeys(origin)
                rows += demo.rows(action[0])
                done = wanted.terminal or layout.terminal
                inside += int(demo[done][:-1].astype(bool).sum()) if done in demo else 0
                without += not self._has_successor(demo, layout)
            if 0 < without_rewards < len(self._spans):
                del notes[NO_REWARDS]
                notes[f"{without_rewards} of {len(self._spans)} demonstrations have no rewards, so theirs are 0"] = None
            if without:
                left.append(LeftOut(_NO_SUCCESSOR, rows=without))
            if self._others:
                left.append(LeftOut(f"groups data/{listed(self._others)}, not called demo_*"))
            short = sum(part.episodes for part in self._short)
            if inside:
                name = wanted.terminal or "dones"
                notes[f"{inside} {name} lie within a demonstration, which goes on: they end nothing"] = None
            return Inventory(len(self._spans) + short, rows, tuple(left), tuple(sorted(columns)), tuple(notes))

    @property
    def _action(self) -> str:
        """The column of a demonstration whose rows are its steps."""
        return (self._config.columns.action or ("actions",))[0]

    def _list_demos(self, demos: h5py.Group) -> None:
        names = sorted(demos, key=_natural)
        self._others = [name for name in names if not name.startswith("demo")]
        self._spans, self._short = [], list[LeftOut]()
        for name in names:
            if not name.startswith("demo"):
                continue
            demo = self._demo(name)
            rows = demo.rows(self._action)
            if rows == 0 and self._action in demo:
                self._short.append(LeftOut(f"{name}, of no rows", 1))
            elif rows == 1 and not self._has_successor(demo, _demo_layout(demo)):
                reward = self._config.columns.reward or "rewards"
                lost = float(demo[reward].sum()) if reward in demo else 0.0
                self._short.append(LeftOut(f"{name}, of one row that no observation follows", 1, 1, lost))
            else:
                self._spans.append((name, 0, None))

    def _like_the_first(self, name: str, layout: Layout) -> Layout:
        """See that a state is made of the columns of the first demonstration: others of one size mean something else.

        Raises:
            DataError: naming both.
        """
        first = self._spans[0][0]
        if not self._observed:
            self._observed = _demo_layout(self._demo(first)).observation
        if layout.observation != self._observed and not self._config.columns.observation:
            here, there = (", ".join(names) or "no columns" for names in (layout.observation, self._observed))
            raise DataError(
                f"{name} observes {here}, {first} {there}: set episodes.columns.observation to columns of all, "
                "or write the demonstrations apart"
            )
        return layout

    def _demo(self, name: str) -> GroupColumns:
        group = child(self._file, f"data/{name}")
        if not isinstance(group, h5py.Group):
            raise DataError(f"data/{name} is no group of columns; write the demonstration again")
        return GroupColumns(group, self._config.max_bytes)

    def _has_successor(self, demo: GroupColumns, layout: Layout) -> bool:
        """Whether an observation follows a demonstration's last action."""
        seen = (*(self._config.columns.observation or layout.observation), *self._config.columns.images)
        names = [name for name in seen if name in demo]
        return layout.follows(self._config) or any(demo.rows(name) > demo.rows(self._action) for name in names)


def _demo_layout(columns: GroupColumns) -> Layout:
    names = columns.vectors("obs")
    after = tuple(f"next_{name}" for name in names)
    return Layout(
        tuple(names),
        ("actions",),
        "rewards",
        "dones" if "dones" in columns else "",
        after if all(n in columns for n in after) else (),
        success="success" if "success" in columns else "",
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts demo_2 before demo_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
