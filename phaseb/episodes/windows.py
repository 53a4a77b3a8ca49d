"""Windows of one length out of episodes of any length."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.seeding import numpy_generator

GAP_SHARE = 0.5
"""Steps between two windows of an episode, as a share of their length."""


def gap_of(steps: int) -> int:
    """Steps between two windows of `steps` steps."""
    return max(1, round(GAP_SHARE * steps))


def window_counts(lengths: NDArray[np.integer], steps: int) -> NDArray[np.int64]:
    """(N,) windows of `steps` steps, with gaps between them, that fit into episodes of `lengths` (N,)."""
    gap = gap_of(steps)
    lengths = np.asarray(lengths, dtype=np.int64)
    return np.where(lengths >= steps, (lengths + gap) // (steps + gap), 0)


def in_rounds(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Episode and turn (W,) of each window: a first one of each episode, then a second one, and so on."""
    rounds = [np.flatnonzero(counts > turn) for turn in range(int(counts.max(initial=0)))]
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *rounds])
    return rows, np.repeat(np.arange(len(rounds)), [len(part) for part in rounds])


Index = tuple[NDArray[np.int64], NDArray[np.int64]]


def window_index(
    data: Trajectories, rows: NDArray[np.int64], starts: NDArray[np.int64], steps: int
) -> tuple[Index, Index]:
    """Where windows begin at steps `starts` (W,) of episodes `rows` (W,): observations (W, S+1) and steps (W, S).

    Beyond the end of an episode stands its last observation, and its last step.
    """
    at, last = rows[:, None], data.lengths[rows][:, None]
    span = starts[:, None] + np.arange(steps + 1)
    return (at, np.minimum(span, last)), (at, np.minimum(span[:, :-1], last - 1))


def cut(data: Trajectories, rows: NDArray[np.int64], starts: NDArray[np.int64], steps: int) -> Trajectories:
    """The windows (W, steps) that begin at steps `starts` (W,) of the episodes `rows` (W,)."""
    states, span = window_index(data, rows, starts, steps)
    return replace(
        data.select(rows),
        z=data.z[states],
        actions=data.actions[span],
        rewards=data.rewards[span],
        terminals=data.terminals[span],
        lengths=np.full(len(rows), steps, dtype=np.int64),
        start_step=None,
        uncertainty=None,
        trust=None,
        weights=None,
        episode_trust=None,
    )


def windows(data: Trajectories, steps: int, seed: int) -> Trajectories:
    """Windows of `steps` steps from all over the episodes; of an episode of that length, the episode itself.

    The first window of an episode begins at a random step, so that no part of it is never seen. `start_step` is where
    a window begins, `lineage["start_episode"]` its episode, and its id is unique. Shorter episodes have no window.
    """
    rows, turns = in_rounds(window_counts(data.lengths, steps))
    stride = steps + gap_of(steps)
    spare = data.lengths - window_counts(data.lengths, steps) * stride + gap_of(steps)
    first = numpy_generator(seed, "windows").integers(0, np.maximum(spare, 0) + 1)
    starts = first[rows] + turns * stride
    names = data.lineage.get("start_episode", data.ids)
    ids = (data.ids[row] if not start else f"{data.ids[row]}@{start}" for row, start in zip(rows, starts, strict=True))
    before = 0 if data.start_step is None else data.start_step[rows]
    found = cut(data, rows, starts, steps)
    return replace(
        found,
        ids=tuple(ids),
        start_step=(before + starts).astype(np.int64),
        lineage=found.lineage | {"start_episode": tuple(names[row] for row in rows)},
    )
