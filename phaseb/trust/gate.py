"""The gate: trust becomes the weight of each synthetic transition. 0 drops it.

    weight = clip(p / (1 − p) · (1 − π) / π, 0, max) × what uncertainty leaves,

p the calibrated trust and π the share of real that it was calibrated at: the density ratio of real to synthetic
(Sugiyama et al. 2012). A rollout is cut at the first step that goes bad; what lies before it keeps its weight.

N episodes, T steps.
"""

import numpy as np
from numpy.typing import NDArray

PASS_QUANTILE = 0.05
"""An episode passes at this quantile of held-out real trust or above."""
MIN_WEIGHT = 0.02
"""Weights below this become zero."""

Floats = NDArray[np.floating]
LOOK_BACK = 4
MIN_STEPS = 5
"""A rollout that is cut before this step is dropped whole."""
MAX_WEIGHT = 1.0
"""Largest weight of a synthetic transition; a real one has 1."""


def density_ratio(p: Floats, prior: float = 0.5) -> NDArray[np.float64]:
    """p / (1 − p), corrected for the share of real `prior` among what p was calibrated on."""
    p = np.asarray(p, dtype=np.float64)
    return np.asarray(p / np.maximum(1 - p, 1e-12) * ((1 - prior) / prior))


def truncation_step(trust: Floats, lengths: NDArray[np.integer], threshold: float) -> NDArray[np.int64]:
    """(N,) where each episode goes bad; its length where it does not.

    The alarm is the first transition whose trust (N, T) is below the threshold. A fault is often seen for sure only
    some steps after it began, so the cut goes back from the alarm, up to LOOK_BACK steps, over those that are more
    likely bad than good.
    """
    inside = np.arange(trust.shape[1])[None] < lengths[:, None]
    alarm = (trust < threshold) & inside
    doubtful = (trust < max(threshold, 0.5)) & inside
    cuts = np.where(alarm.any(1), alarm.argmax(1), lengths).astype(np.int64)
    going = alarm.any(1)
    for _ in range(LOOK_BACK):
        going = going & (cuts > 0) & doubtful[np.arange(len(cuts)), np.maximum(cuts - 1, 0)]
        cuts = cuts - going
    return cuts


def uncertainty_discount(uncertainty: Floats | None, mask: NDArray[np.bool_], scale: float) -> NDArray[np.float64]:
    """(N, T) factor that uncertainty leaves of a weight: 1 up to the scale, then exp(1 − u / scale).

    Uncertainty of a rollout never shrinks again: what follows an uncertain step starts from a doubtful state. A scale
    of 0 belongs to a generator that never says that it is uncertain (one member; zeros): nothing is discounted then,
    except steps of infinite uncertainty, whose factor is 0.
    """
    if uncertainty is None:
        return np.ones(mask.shape)
    worst = np.maximum.accumulate(np.where(mask, uncertainty, 0.0), axis=1)
    if scale <= 0:
        return np.isfinite(worst).astype(np.float64)
    return np.asarray(np.exp(-np.maximum(worst / scale - 1, 0)))


def gate_weights(
    trust: Floats,
    episode_trust: Floats,
    lengths: NDArray[np.integer],
    cuts: NDArray[np.integer],
    discount: Floats,
    segment_threshold: float,
    prior: float = 0.5,
) -> NDArray[np.float32]:
    """Weights (N, T) of synthetic transitions.

    Args:
        trust: (N, T) calibrated trust of transitions.
        episode_trust: (N,) calibrated trust of each episode up to its cut.
        lengths: (N,) numbers of steps.
        cuts: (N,) first bad transition of each; the length where there is none.
        discount: (N, T) what uncertainty leaves.
        segment_threshold: below this trust of what is left of it, an episode is dropped whole.
        prior: share of real that trust was calibrated at.
    """
    ratio = np.minimum(density_ratio(trust, prior), density_ratio(episode_trust, prior)[:, None])
    kept = np.arange(trust.shape[1])[None] < cuts[:, None]
    # A rollout that was cut must leave enough to judge; one that was made short is judged as it is.
    whole = (cuts >= np.minimum(MIN_STEPS, lengths)) & (episode_trust >= segment_threshold)
    weights = np.clip(ratio, 0, MAX_WEIGHT) * discount * kept * whole[:, None]
    return np.where(weights < MIN_WEIGHT, 0, weights).astype(np.float32)


def effective_contribution(synthetic_weights: Floats, num_real: int) -> float:
    """Σ weights of synthetic transitions / Σ weights of all, where every real transition weighs 1."""
    total = float(np.sum(synthetic_weights))
    return total / (total + num_real)


def pass_rate(episode_trust: Floats, threshold: float) -> float:
    """Share of episodes whose trust reaches the threshold (the 5 % quantile of held-out real trust)."""
    return float(np.mean(np.asarray(episode_trust) >= threshold))
