"""What the rules look at: a sample of the recorded episodes, with the names of their columns.

T steps, D state columns, A action columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.episode import Episode
from phaseb.episodes.state_columns import from_tag

Floats = NDArray[np.float64]
MOST_LEVELS = 16
"""Distinct values up to which a column is discrete, such as a gripper's command."""


@dataclass(frozen=True)
class Recording:
    """One episode without its frames.

    Attributes:
        id: of the episode.
        state: (T+1, D), D = 0 where there are only frames.
        actions: (T, A), A = 0 where there are none.
        rewards: (T,).
    """

    id: str
    state: Floats
    actions: Floats
    rewards: Floats

    @classmethod
    def of(cls, episode: Episode) -> "Recording":
        steps = len(episode)
        state = np.zeros((steps + 1, 0)) if episode.state is None else episode.state.astype(np.float64)
        actions = np.zeros((steps, 0)) if episode.actions is None else episode.actions.astype(np.float64)
        return cls(episode.id, state, actions, episode.rewards.astype(np.float64))

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Group:
    """Columns of one kind over all episodes.

    Attributes:
        names: of the C columns.
        rows: (R, C) of all episodes, one after another.
        first: (N + 1,) row at which each episode begins.
        ids: of the N episodes.
        is_action: whether these are actions.
    """

    names: tuple[str, ...]
    rows: Floats
    first: NDArray[np.int64]
    ids: tuple[str, ...]
    is_action: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def episode(self, i: int) -> Floats:
        """(T, C) rows of one episode."""
        return self.rows[self.first[i] : self.first[i + 1]]

    def is_discrete(self) -> NDArray[np.bool_]:
        """(C,) whether a column takes few distinct values."""
        subsample = self.rows[:: max(1, len(self.rows) // 20_000)]
        return np.array([len(np.unique(column)) <= MOST_LEVELS for column in subsample.T], dtype=bool)


def state_names(episode: Episode) -> tuple[str, ...]:
    """A name for each state column: `joint`, `joint[1]`, or `state[3]` where the data name none."""
    width = 0 if episode.state is None else episode.state.shape[1]
    named = [(name, i, size) for name, size in from_tag(episode.tags) for i in range(size)]
    if len(named) != width:
        return tuple(f"state[{i}]" for i in range(width))
    return tuple(name if size == 1 else f"{name}[{i}]" for name, i, size in named)


def states_of(recordings: Sequence[Recording], names: Sequence[str]) -> Group:
    """The states of all episodes."""
    return _group(names, [one.state for one in recordings], recordings)


def actions_of(recordings: Sequence[Recording]) -> Group:
    """The actions of all episodes."""
    width = recordings[0].actions.shape[1] if recordings else 0
    return _group([f"action[{i}]" for i in range(width)], [one.actions for one in recordings], recordings, True)


def _group(
    names: Sequence[str], parts: Sequence[Floats], recordings: Sequence[Recording], is_action: bool = False
) -> Group:
    first = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    rows = np.concatenate(parts) if parts else np.zeros((0, len(names)))
    return Group(tuple(names), rows, first, tuple(one.id for one in recordings), is_action)
