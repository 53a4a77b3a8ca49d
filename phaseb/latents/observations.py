"""What ought to be known of observations before training: constant columns, clocks, angles that wrap."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.episode import Episode
from phaseb.episodes.resolution import is_constant
from phaseb.errors import DataError
from phaseb.latents.padding import Observation, resolve_observation

TURN = 1.0
PERIODS = {2 * np.pi: "2π", 360.0: "360", TURN: "1, a turn"}
JUMP = 0.75  # share of a period that a step over the seam takes, at least; other steps take less than SLOW of it
SLOW = 0.5
MOST_ONWARD = 0.7
MOST_SHOWN = 8
CLOCK_SPREAD, COARSE_SPREAD = 2.0, 50.0
"""Least spread of a clock's starts (standard deviation over episodes), in spans of the longest episode: of a clock that
ticks at every step, and of one that stands still at some, such as whole seconds."""


def examine_observations(episodes: Sequence[Episode], observation: Observation = "auto") -> list[str]:
    """A line on each thing that a person ought to know of training episodes' observations.

    Raises:
        DataError: where nothing that is observed ever changes, naming the columns.
    """
    if not episodes:
        return []
    seen = resolve_observation(episodes, observation)
    frames_change = seen != "state" and _frames_change(episodes)
    if seen == "frames":
        if not frames_change:
            raise DataError(f"the frames never change in all {len(episodes)} training episodes; record what moves")
        return []
    states = [e.state for e in episodes if e.state is not None]
    constant = is_constant(np.concatenate(states))
    if constant.all() and not frames_change:
        raise DataError(
            f"observations never change: state {_columns(constant)} (the first is {states[0][0, 0]:g}) in all "
            f"{len(episodes)} training episodes; set episodes.columns.observation to columns that do"
        )
    notices = []
    if constant.any():
        notices.append(f"state {_columns(constant)} never change in the training episodes: policies do not see them")
    clock = clock_columns(states)
    if clock.any():
        notices.append(
            f"state {_columns(clock)}: a clock that starts anywhere tells which episode it is and not what to do; "
            "policies do not see it"
        )
    notices += [
        f"state column {column} jumps by about {PERIODS[period]}, as an angle that wraps: what lies side by side is "
        f"far apart there; give its sine and cosine instead"
        for column, period in wrapping_angles(states).items()
    ]
    return notices


def clock_columns(states: Sequence[NDArray[np.floating]]) -> NDArray[np.bool_]:
    """(S,) true for columns of states (T+1, S) of some episodes that are clocks: a wall clock, a frame counter.

    Such a column never turns round, and its starts lie much farther apart than an episode lasts. If it stands still at
    some steps, most episodes have to move it. None is marked where no other column moves, or of one episode alone.
    """
    found = np.zeros(states[0].shape[1], dtype=bool)
    moving = [s.astype(np.float64) for s in states if len(s) > 1]
    if len(moving) < 2:
        return found
    steps = np.concatenate([np.diff(s, axis=0) for s in moving])
    moved = np.stack([np.abs(s[-1] - s[0]) for s in moving])
    span = moved.max(axis=0)
    spread = np.stack([s[0] for s in moving]).std(axis=0)
    one_way = (steps >= 0).all(axis=0) | (steps <= 0).all(axis=0)
    coarse = (np.median(moved, axis=0) > 0) & (spread > COARSE_SPREAD * span)
    found = one_way & np.where((steps != 0).all(axis=0), spread > CLOCK_SPREAD * span, coarse)
    return found if not (found | is_constant(np.concatenate(states))).all() else np.zeros_like(found)


def wrapping_angles(states: Sequence[NDArray[np.floating]]) -> dict[int, float]:
    """The columns of states (T+1, S) of some episodes that are angles cut at a seam, and the period of each.

    Such a column stays within one period; its steps are small, or nearly a whole period. A period of 1 is also the span
    of grippers and shares: there, most jumps have to go on as the step before them went.
    """
    rows = np.concatenate(states).astype(np.float64)
    span = np.ptp(rows, axis=0)
    moves = [np.diff(s.astype(np.float64), axis=0) for s in states]
    steps = np.abs(np.concatenate(moves))
    found: dict[int, float] = {}
    for period in PERIODS:
        jumps = steps >= JUMP * period
        smooth = np.where(jumps, 0.0, steps).max(axis=0)
        wraps = jumps.any(axis=0) & (smooth > 0) & (smooth < SLOW * period)
        wraps &= (span <= (1 + 1e-3) * period) & (jumps.mean(axis=0) < SLOW)
        if period == TURN:
            wraps &= _go_on(moves)
        found |= {int(column): period for column in np.flatnonzero(wraps)}
    return found


def _go_on(moves: Sequence[NDArray[np.floating]]) -> NDArray[np.bool_]:
    """(S,) true where most jumps over the seam of a turn, less the turn, go the way of the step before them.

    Args:
        moves: (T, S) steps of each episode.
    """
    after = np.concatenate([m[1:] for m in moves])
    jumps = np.abs(after) >= JUMP * TURN
    onward = (after - np.sign(after) * TURN) * np.concatenate([m[:-1] for m in moves]) > 0
    return np.asarray((onward & jumps).sum(axis=0) > MOST_ONWARD * np.maximum(jumps.sum(axis=0), 1))


def _frames_change(episodes: Sequence[Episode]) -> bool:
    first = episodes[0].frames
    return first is not None and any(e.frames is not None and (e.frames != first[0]).any() for e in episodes)


def _columns(chosen: NDArray[np.bool_]) -> str:
    """Columns by their numbers, the first few."""
    numbers = np.flatnonzero(chosen)
    shown = ", ".join(map(str, numbers[:MOST_SHOWN])) + (", …" if len(numbers) > MOST_SHOWN else "")
    return f"column {shown}" if len(numbers) == 1 else f"columns {shown}"
