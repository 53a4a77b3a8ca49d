"""HDF5 data sets of two layouts, told apart by what the file holds.

- D4RL: `observations`, `actions`, `rewards`, `terminals` (M, …) one after another, cut at terminals and `timeouts`;
  `next_observations` where it has them.
- robomimic: groups `data/demo_*` of `actions`, `rewards`, `dones`, `obs/*` and maybe `next_obs/*`.
"""

import itertools
import re
from collections.abc import Iterator, Sequence

import h5py
import numpy as np

from phaseb.config.episodes import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.episode_builder import Layout, make_episode
from phaseb.episodes.formats.hdf5_file import GroupColumns, child, naming, open_file
from phaseb.episodes.sources import Entry
from phaseb.errors import DataError

_FLAT = Layout(("observations",), ("actions",), "rewards", "terminals")


class Source:
    """The episodes of one HDF5 file."""

    def __init__(self, config: EpisodesConfig) -> None:
        self._config = config
        with naming(config.path):
            self._file = open_file(config.path)
            demos = child(self._file, "data")
            if isinstance(demos, h5py.Group):
                names = sorted((name for name in demos if name.startswith("demo")), key=_natural)
                self._spans: list[tuple[str, int, int | None]] = [(name, 0, None) for name in names]
            elif isinstance(child(self._file, "actions"), h5py.Dataset):
                self._spans = self._cut_flat()
            else:
                raise DataError(f"is neither of D4RL's layout nor of robomimic's; it holds {sorted(self._file)[:9]}")
            if not self._spans:
                raise DataError("holds no episodes")

    def entries(self) -> Sequence[Entry]:
        return [(name, "") for name, _, _ in self._spans]

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        for index in indices:
            name, first, last = self._spans[index]
            with naming(self._config.path):
                group = self._file if last is not None else child(self._file, f"data/{name}")
                columns = GroupColumns(group, self._config.max_bytes, first, last)
                layout = _flat_layout(columns) if last is not None else _demo_layout(columns)
                episode = make_episode(name, columns, layout, self._config, self._config.path.rpartition("/")[2])
            yield episode

    def _cut_flat(self) -> list[tuple[str, int, int | None]]:
        columns = GroupColumns(self._file, self._config.max_bytes)
        ends = np.zeros(len(columns["rewards"]), bool)
        for name in (self._config.columns.terminal or "terminals", "timeouts"):
            if name in columns:
                ends |= columns[name].reshape(-1).astype(bool)
        bounds = [0, *(np.flatnonzero(ends) + 1).tolist()]
        if bounds[-1] < len(ends):
            bounds.append(len(ends))
        least = 1 if "next_observations" in columns else 2  # a lone row without a successor is no step
        spans = [(first, last) for first, last in itertools.pairwise(bounds) if last - first >= least]
        return [(f"episode-{i:06d}", first, last) for i, (first, last) in enumerate(spans)]


def _flat_layout(columns: GroupColumns) -> Layout:
    after = ("next_observations",) if "next_observations" in columns else ()
    return Layout(_FLAT.observation, _FLAT.action, _FLAT.reward, _FLAT.terminal, after)


def _demo_layout(columns: GroupColumns) -> Layout:
    names = columns.vectors("obs")
    after = [f"next_{name}" for name in names]
    return Layout(
        tuple(names), ("actions",), "rewards", "dones", tuple(after) if all(n in columns for n in after) else ()
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts demo_2 before demo_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
