"""What the temporal network is shown of each transition, and what the episode network is shown of each episode.

N episodes, T steps, D latent dimensions, A action dimensions, I inputs.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.episodes.trajectories import Trajectories
from phaseb.trust.features import report_features
from phaseb.trust.one_step_residuals import RidgeDynamics, RidgeFeatures

HOLD = 0.01  # a step of less than this share of the usual one stands still
WINDOW = 5
NUM_SIGNALS = 5


def transition_inputs(
    data: Trajectories, predictor: RidgeDynamics, fold: int, features: RidgeFeatures | None = None
) -> NDArray[np.float32]:
    """(N, T, I) of (z, Δz, a, r), the local predictor's errors, and signs of holding still; padding is zero.

    Large values are compressed by asinh, so that an exploding rollout stays a number. The predictor's error is
    shown by dimension and pooled: too large is a fault, too small is a blurred prediction. Pooled signals come with
    what lasts of them over a few steps ahead and behind. `features` are the predictor's of the data, where known.
    """
    tensors = predictor.tensors()
    change = np.diff(data.z.astype(np.float64), axis=1) / tensors["pace"]
    errors = predictor.errors(data, fold, features).astype(np.float64)
    size, held = np.abs(errors[..., :-1]), np.exp(-np.abs(change) / HOLD)
    signals = np.stack(
        [
            np.log((size**2).mean(-1) + 1e-4),
            np.log(size.max(-1) + 1e-2),
            np.log((change**2).mean(-1) + 1e-4),
            _longest_hold(held > 0.5),
            np.arcsinh(np.abs(errors[..., -1])),
        ],
        axis=-1,
    )
    around = [_lasting(signals, data.lengths, ahead) for ahead in (True, False)]
    parts = [
        np.arcsinh(data.z[:, 1:]),
        np.arcsinh(change),
        data.actions,
        np.arcsinh(data.rewards[..., None] / tensors["reward_scale"]),
        np.arcsinh(errors),
        held,
        signals,
        *around,
    ]
    return np.asarray(np.concatenate(parts, axis=2) * data.mask[..., None], dtype=np.float32)


def num_transition_inputs(num_dims: int, num_actions: int) -> int:
    """I of `transition_inputs`."""
    return 4 * num_dims + num_actions + 2 + 3 * NUM_SIGNALS


def _longest_hold(held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N, T, D) → (N, T) log1p of the longest run of still steps through step t, over all dimensions.

    Which dimension stands still does not matter, so a network need not learn it once for each.
    """

    def runs(still: NDArray[np.bool_]) -> NDArray[np.float64]:
        count = np.zeros(still.shape)
        count[:, 0] = still[:, 0]
        for t in range(1, still.shape[1]):
            count[:, t] = (count[:, t - 1] + 1) * still[:, t]
        return count

    through = runs(held) + runs(held[:, ::-1])[:, ::-1] - held
    return np.asarray(np.log1p(through.max(-1)))


def _lasting(signals: NDArray[np.float64], lengths: NDArray[np.integer], ahead: bool) -> NDArray[np.float64]:
    """(N, T, S) second lowest of the WINDOW steps from each step on, or before it: a fault begins where they part.

    Second lowest, because a fault that lasts lifts all of them and an event, however large, does not. Beyond either
    end of the episode its last, or first, step is repeated.
    """
    steps = np.arange(signals.shape[1])
    offsets = np.arange(WINDOW) if ahead else np.arange(-WINDOW, 0)
    at = np.clip(steps[:, None] + offsets, 0, np.maximum(lengths - 1, 0)[:, None, None])
    return np.asarray(np.partition(signals[np.arange(len(signals))[:, None, None], at], 1, axis=2)[:, :, 1])


def episode_inputs(data: Trajectories) -> NDArray[np.float32]:
    """(N, 6·D + 1): the report's features, compressed by asinh, and the logarithm of the length."""
    features = report_features(torch.from_numpy(data.z), torch.from_numpy(data.mask)).asinh()
    length = torch.from_numpy(np.log(data.lengths)).float()[:, None]
    return np.asarray(torch.cat([features, length], dim=1).numpy(), dtype=np.float32)
