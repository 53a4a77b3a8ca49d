"""Whose recorded transitions does a policy live by? Each of its steps is attributed to the nearest ones.

M steps of the policy, R recorded transitions, D latent and A action dimensions, K bricks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.neighbors import NearestNeighbors

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Recorded:
    """Transitions of training episodes: latents (R, D), actions (R, A) in [-1, 1], and the brick (R,) of each."""

    z: Floats
    actions: Floats
    brick: NDArray[np.integer]


def attribution(
    steps: tuple[Floats, Floats], recorded: Recorded, num_bricks: int, neighbours: int
) -> NDArray[np.float64]:
    """(K,) share of the policy's steps (latents (M, D), actions (M, A)) that lean on each brick; they add up to 1.

    A step leans on its `neighbours` nearest recorded transitions over (z, a), equally. Actions weigh as much as
    latents do, whatever their numbers: a brick that shows the same place under other actions is no support.
    """
    size = min(neighbours, len(recorded.z))
    search = NearestNeighbors(n_neighbors=size).fit(_joined(recorded.z, recorded.actions))
    nearest = search.kneighbors(_joined(*steps), return_distance=False)
    counts = np.bincount(recorded.brick[nearest].ravel(), minlength=num_bricks)
    return np.asarray(counts / counts.sum())


def rank_correlation(estimates: Floats, measured: Floats) -> float:
    """Spearman's rank correlation of two valuations of the same bricks; NaN below three bricks."""
    if len(estimates) < 3 or np.ptp(estimates) == 0 or np.ptp(measured) == 0:
        return float("nan")
    return float(stats.spearmanr(estimates, measured).statistic)


def _joined(z: Floats, actions: Floats) -> NDArray[np.float64]:
    """Latents and actions side by side, each block of unit expected square: z is standardised, actions span 2."""
    return np.concatenate([z / np.sqrt(z.shape[1]), actions / np.sqrt(max(1, actions.shape[1]) / 3)], axis=1)
