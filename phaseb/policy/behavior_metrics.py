"""How far a policy is from the operators it learned from: a cloning measure, reported, never a goal."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.resolution import is_constant, spread_of
from phaseb.episodes.trajectories import Trajectories

Act = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def action_mse(act: Act, held_out: Trajectories) -> float:
    """Mean squared difference of the policy's mean action and the recorded one over real steps and dimensions.

    Each dimension counts in standard deviations of what was recorded: 1 is what the mean recorded action has. A
    dimension that was never moved has none, and is left out; NaN where nothing is left.
    """
    mask = held_out.mask
    if not mask.any():
        return float("nan")
    z, recorded = held_out.z[:, :-1][mask], held_out.actions[mask]
    moved = ~is_constant(recorded)
    if not moved.any():
        return float("nan")
    error = (act(z).astype(np.float64) - recorded)[:, moved] / spread_of(recorded)[moved]
    return float(np.square(error).mean())


def action_errors(act: Act, held_out: Trajectories, recorded: Trajectories) -> NDArray[np.float64]:
    """(N, A) root mean squared difference of mean action and recorded one, over the steps of each held-out episode.

    Args:
        act: the policy.
        held_out: N episodes.
        recorded: episodes whose standard deviation (A,) is the unit; a dimension that they never move is NaN.
    """
    taken = recorded.actions[recorded.mask]
    unit = np.where(is_constant(taken), np.nan, spread_of(taken))
    mask, flat = held_out.mask, held_out.z[:, :-1]
    squares = np.zeros(held_out.actions.shape, np.float64)
    squares[mask] = np.square((act(flat[mask]).astype(np.float64) - held_out.actions[mask]) / unit)
    return np.asarray(np.sqrt(squares.sum(1) / held_out.lengths[:, None]))


def episode_errors(errors: NDArray[np.floating]) -> NDArray[np.float64]:
    """(..., N) root mean square over the dimensions that are moved, of errors (..., N, A)."""
    return np.asarray(np.sqrt(np.nanmean(np.square(errors), axis=-1)))


def action_levels(recorded: Trajectories) -> NDArray[np.float32]:
    """(A, 2) lower and upper level of the action dimensions that were only ever recorded at two; 0 for the others."""
    return two_levels(recorded.actions[recorded.mask])


def two_levels(actions: NDArray[np.floating]) -> NDArray[np.float32]:
    """The same of actions (N, A)."""
    levels = np.zeros((actions.shape[-1], 2), np.float32)
    for dim, values in enumerate(actions.T):
        found = np.unique(values)
        if len(found) == 2:
            levels[dim] = found
    return levels


def snapped(actions: NDArray[np.floating], levels: NDArray[np.floating]) -> NDArray[np.float32]:
    """Actions (N, A) with those of a switch at the nearer of its two levels (A, 2); 0 and 0 where there is none."""
    low, high = levels[:, 0], levels[:, 1]
    nearer = np.where(actions > (low + high) / 2, high, low)
    return np.where(low < high, nearer, actions).astype(np.float32)
