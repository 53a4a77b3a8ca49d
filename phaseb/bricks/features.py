"""One vector an episode, pooled from its latents without its padding."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.trajectories import Trajectories


def episode_features(trajectories: Trajectories, names: Sequence[str]) -> NDArray[np.float64]:
    """(N, F * D) features: `mean`, `std`, `range` (max - min) and `step` (mean |z_{t+1} - z_t|) of z over t."""
    z = trajectories.z.astype(np.float64)
    inside = np.arange(z.shape[1])[None] <= trajectories.lengths[:, None]
    weight = inside[..., None]
    count = weight.sum(1)
    mean = (z * weight).sum(1) / count
    pooled = {
        "mean": lambda: mean,
        "std": lambda: np.sqrt((np.square(z - mean[:, None]) * weight).sum(1) / count),
        "step": lambda: (np.abs(np.diff(z, axis=1)) * weight[:, 1:]).sum(1) / (count - 1),
        "range": lambda: z.max(1) - z.min(1),  # padding repeats the last latent, so it cannot widen the range
    }
    return np.concatenate([pooled[name]() for name in names], axis=1)
