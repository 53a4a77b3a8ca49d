"""D4RL's flat layout: the rows of all trajectories one after another, cut where flags end them.

In some data sets (antmaze) `terminals` say that the goal is reached while the trajectory goes on: there, only
`timeouts` cut. It shows where rows follow a terminal without a reset: `next_observations` are the next row's, terminals
follow each other, the time limit counts on, or observations move on there as elsewhere and jump where `timeouts` cut.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.formats.episode_builder import Layout
from phaseb.episodes.formats.hdf5_file import GroupColumns
from phaseb.episodes.formats.success import reward_notes
from phaseb.episodes.inventory import Inventory, LeftOut
from phaseb.errors import DataError

LEAP = 1.5  # times the largest move within a trajectory, beyond which a row does not follow the one before
Span = tuple[str, int, int | None]
"""An episode's id, its first row, and the row after its last."""
_NEXT = "next_observations"
_SUCCESS = "success"
_FLAT = Layout(("observations",), ("actions",), "rewards", "terminals")


@dataclass(frozen=True)
class FlatCut:
    """Where the episodes of a flat file are.

    Attributes:
        spans: of each episode.
        rows: of the whole file.
        single: (K,) lone rows that nothing follows.
        single_reward: the sum of their rewards.
        follows: whether an observation follows each episode's last action.
        goes_on: terminals after which a trajectory goes on, which cut nothing.
        columns: that no episode holds.
        reward_sentences: on where rewards come from, if they are not recorded.
    """

    spans: list[Span]
    rows: int
    single: NDArray[np.int64]
    single_reward: float
    follows: bool
    goes_on: int
    columns: tuple[str, ...]
    reward_sentences: tuple[str, ...] = ()

    def inventory(self, config: EpisodesConfig) -> Inventory:
        """What the file holds, and what of it is left out."""
        left, notes = list[LeftOut](), list(self.reward_sentences)
        if len(self.single):
            count = len(self.single)
            left.append(LeftOut("episodes of one row that no observation follows", count, count, self.single_reward))
        if not self.follows:
            left.append(
                LeftOut(
                    "the last action of each episode: no observation follows it, so its reward is added to "
                    "the step before",
                    rows=len(self.spans),
                )
            )
        if self.goes_on:
            notes.append(f"{self.goes_on} terminals do not end their trajectory, which goes on: only timeouts cut")
        return Inventory(len(self.spans) + len(self.single), self.rows, tuple(left), self.columns, tuple(notes))


def flat_layout(columns: GroupColumns) -> Layout:
    """The names of a flat file's columns."""
    after = (_NEXT,) if _NEXT in columns else ()
    terminal = _FLAT.terminal if _FLAT.terminal in columns else ""
    success = _SUCCESS if _SUCCESS in columns else ""
    return Layout(_FLAT.observation, _FLAT.action, _FLAT.reward, terminal, after, success=success)


def cut_flat(columns: GroupColumns, config: EpisodesConfig) -> FlatCut:
    """Find the episodes of a flat file.

    Raises:
        DataError: for columns of other lengths, or where no flag ends any episode.
    """
    used = _used(columns, config)
    rows = _one_length(columns, list(used.values()))
    rewards = columns[used["reward"]].reshape(-1) if "reward" in used else np.zeros(rows, np.float32)
    terminals, timeouts = (_flags(columns, name, rows) for name in (used.get("terminal", ""), "timeouts"))
    if not (terminals.any() or timeouts.any()):
        raise DataError(
            f"marks no end in its {rows} rows: neither {config.columns.terminal or 'terminals'!r} nor "
            "'timeouts' is ever set; write 'timeouts', or set episodes.columns.terminal"
        )
    goes_on = _going_on(columns, used.get("observation0", ""), terminals, timeouts)
    ends = timeouts | (terminals & ~goes_on)
    bounds = [0, *(np.flatnonzero(ends) + 1).tolist()]
    if bounds[-1] < rows:
        bounds.append(rows)
    follows = flat_layout(columns).follows(config)
    pairs = list(itertools.pairwise(bounds))
    single = np.array([first for first, last in pairs if last - first == 1 and not follows], np.int64)
    spans = [(first, last) for first, last in pairs if last - first > 1 or follows]
    return FlatCut(
        [(f"episode-{i:06d}", first, last) for i, (first, last) in enumerate(spans)],
        rows,
        single,
        float(rewards[single].sum()),
        follows,
        int(goes_on.sum()),
        tuple(sorted(set(columns) - set(used.values()))),
        reward_notes(columns, config.columns, _FLAT.reward, _SUCCESS),
    )


def _used(columns: GroupColumns, config: EpisodesConfig) -> dict[str, str]:
    """The columns that are read, by what they mean; several of one meaning are numbered."""
    wanted = config.columns
    used = {f"observation{i}": name for i, name in enumerate(wanted.observation or _FLAT.observation)}
    used |= {f"action{i}": name for i, name in enumerate(wanted.action or _FLAT.action)}
    used |= {"reward": wanted.reward or _FLAT.reward, "terminal": wanted.terminal or _FLAT.terminal}
    used |= {f"image{i}": name for i, name in enumerate(wanted.images)}
    used |= {"success": wanted.success or _SUCCESS, "power_w": wanted.power_w}
    used |= {"timeouts": "timeouts", _NEXT: _NEXT}
    for name in (wanted.reward, *wanted.observation, wanted.terminal):
        if name and name not in columns:
            raise DataError(f"has no column {name!r}; it has {', '.join(columns)}; set episodes.columns")
    return {meaning: name for meaning, name in used.items() if name and name in columns}


def _one_length(columns: GroupColumns, names: list[str]) -> int:
    lengths = {name: columns.rows(name) for name in names}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {rows}" for name, rows in lengths.items())
        raise DataError(f"columns differ in length: {shown}; write a row of each a step")
    return next(iter(lengths.values()))


def _flags(columns: GroupColumns, name: str, rows: int) -> NDArray[np.bool_]:
    if not name or name not in columns:
        return np.zeros(rows, bool)
    values = columns[name]
    if values.size != rows or values.dtype.kind not in "fiub":
        raise DataError(f"column {name!r} is {values.dtype}{values.shape}, wanted {rows} flags of 0 and 1; write them")
    if not np.isin(values, (0, 1)).all():
        raise DataError(
            f"column {name!r} holds other values than 0 and 1, so no flags of ends; write flags, or set "
            "episodes.columns.terminal to a column of them"
        )
    return np.asarray(values.reshape(-1).astype(bool))


def _going_on(
    columns: GroupColumns, observed: str, terminals: NDArray[np.bool_], timeouts: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """The terminals after which the same trajectory goes on: all of them, where timeouts are there and it shows."""
    nothing = np.zeros(len(terminals), bool)
    inside = np.flatnonzero(terminals[:-1] & ~timeouts[:-1])
    if not timeouts.any() or not len(inside):
        return nothing
    if _NEXT in columns and "observations" in columns:
        after, seen = columns[_NEXT], columns["observations"]
        moved = (after[inside] != seen[inside + 1]).reshape(len(inside), -1)
        nothing[inside[~moved.any(axis=1)]] = True
        return nothing
    follow = (terminals[inside] & terminals[inside + 1]).any()
    if follow or _keeps_time(inside, timeouts) or _moves_on(columns, observed, inside, timeouts):
        nothing[inside] = True
    return nothing


def _keeps_time(inside: NDArray[np.int64], timeouts: NDArray[np.bool_]) -> bool:
    """Whether all trajectories, with such a row in them or not, are as long from timeout to timeout: none is reset."""
    cuts = np.concatenate([[-1], np.flatnonzero(timeouts)])
    holds = np.diff(np.searchsorted(inside, cuts)) > 0
    return bool(holds.any() and not holds.all() and np.ptp(np.diff(cuts)) == 0)


def _moves_on(columns: GroupColumns, observed: str, inside: NDArray[np.int64], timeouts: NDArray[np.bool_]) -> bool:
    """Whether the observation after each of these rows is as near as within a trajectory, while most resets leap."""
    seen = columns[observed] if observed else np.zeros(0)
    resets = np.flatnonzero(timeouts[:-1])
    if seen.dtype.kind != "f" or seen.ndim > 3 or not len(resets):
        return False
    moves = np.abs(np.diff(seen.reshape(len(seen), -1), axis=0))
    ordinary = np.delete(moves, np.concatenate([inside, resets]), axis=0)
    if not len(ordinary):
        return False
    leaps = (moves > LEAP * ordinary.max(axis=0)).any(axis=1)
    return bool(leaps[resets].mean() > 0.5 and not leaps[inside].any())
