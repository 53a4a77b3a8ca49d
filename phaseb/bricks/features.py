"""One vector an episode, pooled from its latents without its padding."""

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.trajectories import Trajectories


def episode_features(trajectories: Trajectories) -> NDArray[np.float64]:
    """(N, 2 D) features of z over t: the standard deviation, then the mean |z_{t+1} - z_t|."""
    z = trajectories.z.astype(np.float64)
    inside = np.arange(z.shape[1])[None] <= trajectories.lengths[:, None]
    weight = inside[..., None]
    count = weight.sum(1)
    mean = (z * weight).sum(1) / count
    std = np.sqrt((np.square(z - mean[:, None]) * weight).sum(1) / count)
    step = (np.abs(np.diff(z, axis=1)) * weight[:, 1:]).sum(1) / (count - 1)
    return np.concatenate([std, step], axis=1)
