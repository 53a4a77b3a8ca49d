"""What the temporal network is shown of each transition, and what the episode network is shown of each episode.

N episodes, T steps, D latent dimensions, A action dimensions, I inputs.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.episodes.trajectories import Trajectories
from phaseb.trust.features import report_features
from phaseb.trust.local import LocalPredictor


def transition_inputs(data: Trajectories, predictor: LocalPredictor, fold: int) -> NDArray[np.float32]:
    """(N, T, I) of (z, Δz, a, r), the local predictor's errors, and signs of holding still; padding is zero.

    Large values are compressed by asinh, so that an exploding rollout stays a number. The predictor's error is
    shown by dimension and pooled: too large is a fault, too small is a blurred prediction.
    """
    tensors = predictor.tensors()
    pace = tensors["pace"]
    change = np.diff(data.z.astype(np.float64), axis=1) / pace
    errors = predictor.errors(data, fold).astype(np.float64)
    size = np.abs(errors[..., :-1])
    held = np.exp(-np.abs(change) / 0.01)
    pooled = np.stack([
        np.log((size**2).mean(-1) + 1e-4), np.log(size.max(-1) + 1e-2), np.log(np.median(size, axis=-1) + 1e-2),
        np.log((change**2).mean(-1) + 1e-4), held.mean(-1),
    ], axis=-1)  # fmt: skip
    parts = [
        np.arcsinh(data.z[:, 1:]), np.arcsinh(change), data.actions,
        np.arcsinh(data.rewards[..., None] / tensors["reward_scale"]), np.arcsinh(errors), held, pooled,
    ]  # fmt: skip
    return np.asarray(np.concatenate(parts, axis=2) * data.mask[..., None], dtype=np.float32)


def episode_inputs(data: Trajectories) -> NDArray[np.float32]:
    """(N, 6·D + 1): the report's features, compressed by asinh, and the logarithm of the length."""
    features = report_features(torch.from_numpy(data.z), torch.from_numpy(data.mask)).asinh()
    length = torch.from_numpy(np.log(data.lengths)).float()[:, None]
    return np.asarray(torch.cat([features, length], dim=1).numpy(), dtype=np.float32)
