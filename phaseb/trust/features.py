"""Features of an episode in latent space: the founding report's six, and what the judges see beside them.

N episodes, T steps, D latent dimensions; `z` holds T+1 observations, the start state first. The start state is
given, not generated, so it counts in no statistic but the first step's difference.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REPORT_FEATURES = ("mean", "std", "min", "max", "var", "smoothness")
JUDGE_FEATURES = (*REPORT_FEATURES, "largest_step", "repeat_share")


def report_features(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean, std, min, max, variance and smoothness of every dimension over time; differentiable.

    Args:
        z: (N, T+1, D).
        mask: (N, T) true at the steps that exist; all of them where it is None.

    Returns:
        (N, 6·D), feature by feature. Smoothness is the mean absolute step, as in the report.
    """
    values, change = z[:, 1:], (z[:, 1:] - z[:, :-1]).abs()
    here = torch.ones(z.shape[0], z.shape[1] - 1, 1, dtype=torch.bool, device=z.device)
    here = here if mask is None else mask[..., None]
    weight = here.to(z.dtype) / here.sum(1, keepdim=True).clamp(min=1).to(z.dtype)
    mean = (values * weight).sum(1)
    variance = ((values - mean[:, None]).square() * weight).sum(1)
    low = values.masked_fill(~here, torch.inf).amin(1)
    high = values.masked_fill(~here, -torch.inf).amax(1)
    # The square root has no gradient at zero, where a rollout that stands still would sit.
    return torch.cat([mean, (variance + 1e-8).sqrt(), low, high, variance, (change * weight).sum(1)], dim=1)


def judge_features(z: NDArray[np.floating]) -> NDArray[np.float64]:
    """The report's features, the largest step, and the share of exactly repeated values.

    Args:
        z: (N, T+1, D), all of full length.

    Returns:
        (N, 8·D), in the order of JUDGE_FEATURES.
    """
    values, change = z[:, 1:].astype(np.float64), np.diff(z.astype(np.float64), axis=1)
    size = np.abs(change)
    parts = [values.mean(1), values.std(1), values.min(1), values.max(1), values.var(1), size.mean(1)]
    return np.concatenate([*parts, size.max(1), (change == 0).mean(1)], axis=1)


def windows(z: NDArray[np.floating], length: int, stride: int) -> NDArray[np.float32]:
    """Windows over time with their differences.

    Args:
        z: (N, T+1, D).
        length: observations a window holds; at most T+1 are used.
        stride: steps between neighbouring windows; the last window always ends with the episode.

    Returns:
        (N, W, (2·length − 1)·D).
    """
    length = min(length, z.shape[1])
    last = z.shape[1] - length
    starts = sorted({*range(0, last + 1, stride), last})
    cut = np.stack([z[:, s : s + length] for s in starts], axis=1).astype(np.float32)
    change = np.diff(cut, axis=2)
    shape = (len(z), len(starts), -1)
    return np.concatenate([cut.reshape(shape), change.reshape(shape)], axis=2)
