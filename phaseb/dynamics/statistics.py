"""Every latent statistic of a rollout against real episodes, as pure functions of arrays.

All take standardised latents z_real, z_syn of shape (N, T, D): the start excluded, equal N, the same T.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Array = NDArray[Any]
LAGS = (1, 2, 5, 10)
EDGE = 10
TINY = 1e-12


def std_ratio(z_real: Array, z_syn: Array) -> float:
    """Mean over episodes and dimensions of the std over t, synthetic / real; 0 for a rollout that stands still."""
    return _ratio(z_syn.std(axis=1).mean(), z_real.std(axis=1).mean())


def std_ratio_pooled(z_real: Array, z_syn: Array) -> float:
    """Mean over episodes of the std over (t, d), synthetic / real: the founding report's own."""
    return _ratio(z_syn.std(axis=(1, 2)).mean(), z_real.std(axis=(1, 2)).mean())


def range_ratio(z_real: Array, z_syn: Array) -> float:
    """(max − min) per dimension over all episodes and steps, averaged over dimensions, synthetic / real."""
    return _ratio(np.ptp(z_syn, axis=(0, 1)).mean(), np.ptp(z_real, axis=(0, 1)).mean())


def variance_growth(z_real: Array, z_syn: Array) -> float:
    """Variance over episodes in the last 10 steps / first 10 steps, mean over dimensions, synthetic / real."""
    return _ratio(_growth(z_syn), _growth(z_real))


def _growth(z: Array) -> float:
    edge = min(EDGE, max(1, z.shape[1] // 2))
    variance = z.var(axis=0)
    first, last = variance[:edge].mean(axis=0), variance[-edge:].mean(axis=0)
    varying = first > TINY
    return float((last[varying] / first[varying]).mean()) if varying.any() else float("nan")


def lag_match(z_real: Array, z_syn: Array) -> float:
    """Mean over lags 1, 2, 5, 10 and dimensions of |log(var(z_{t+k} − z_t) synthetic / real)|.

    Dimensions that do not move in the real data are left out; a synthetic one that stands still counts as e^-27.
    """
    terms = []
    for lag in (k for k in LAGS if k < z_real.shape[1]):
        real, syn = ((z[:, lag:] - z[:, :-lag]).var(axis=(0, 1)) for z in (z_real, z_syn))
        varying = real > TINY
        terms.append(np.abs(np.log(np.maximum(syn[varying], TINY) / real[varying])))
    joined = np.concatenate(terms) if terms else np.empty(0)
    return float(joined.mean()) if joined.size else float("nan")


def drift(z_real: Array, z_syn: Array) -> Array:
    """(T,) Wasserstein-1 distance between the marginals at each step, averaged over dimensions (equal N)."""
    distance: Array = np.abs(np.sort(z_real, axis=0) - np.sort(z_syn, axis=0)).mean(axis=(0, 2))
    return distance


def bounds_pass(z_real: Array, z_syn: Array) -> float:
    """Share of synthetic episodes whose mean and std over (t, d) lie within the real episodes' 1–99 % bounds."""
    return float(within_bounds(z_real, z_syn).mean())


def within_bounds(z_real: Array, z_syn: Array) -> NDArray[np.bool_]:
    """(N,) which synthetic episodes pass the founding report's distribution filter (see `bounds_pass`)."""
    inside = np.ones(len(z_syn), dtype=bool)
    for statistic in (np.mean, np.std):
        low, high = np.quantile(statistic(z_real, axis=(1, 2)), [0.01, 0.99])
        value = statistic(z_syn, axis=(1, 2))
        inside &= (value >= low) & (value <= high)
    return inside


def open_loop_rmse(z_true: Array, z_predicted: Array) -> Array:
    """(T,) root mean square over episodes and dimensions of the error at each step."""
    rmse: Array = np.sqrt(np.square(z_predicted - z_true).mean(axis=(0, 2)))
    return rmse


def break_even_horizon(z_start: Array, z_true: Array, z_predicted: Array) -> int:
    """The number of steps for which the model beats persistence, z_start (N, D) held; T where it always does."""
    persistence = open_loop_rmse(z_true, np.broadcast_to(z_start[:, None], z_true.shape))
    worse = np.flatnonzero(open_loop_rmse(z_true, z_predicted) >= persistence)
    return int(worse[0]) if len(worse) else z_true.shape[1]


def survival(z_true: Array, z_predicted: Array, limit: float = 1.0) -> Array:
    """(T,) share of rollouts whose error (RMS over dimensions) has stayed below `limit` σ up to each step."""
    error = np.sqrt(np.square(z_predicted - z_true).mean(axis=2))
    alive: Array = (np.maximum.accumulate(error, axis=1) < limit).mean(axis=0)
    return alive


def uncertainty_correlation(uncertainty: Array, z_true: Array, z_predicted: Array) -> float:
    """Spearman correlation over rollouts of the mean uncertainty (N, T) with the mean true error of the rollout."""
    error = np.sqrt(np.square(z_predicted - z_true).mean(axis=2)).mean(axis=1)
    return float(spearmanr(uncertainty.mean(axis=1), error).statistic)


def nearest_distance(z: Array, training: Array) -> Array:
    """(N,) RMS distance of each episode (T, D) of z to its nearest training episode: a memorising model's is small."""
    flat, reference = z.reshape(len(z), -1), training.reshape(len(training), -1)
    squared = np.square(flat).sum(1)[:, None] - 2 * flat @ reference.T + np.square(reference).sum(1)[None]
    distance: Array = np.sqrt(np.maximum(squared.min(axis=1), 0) / flat.shape[1])
    return distance


def latent_statistics(z_real: Array, z_syn: Array) -> dict[str, float]:
    """The statistics that compare two sets of equal shape (N, T, D), by the names the report prints.

    Raises:
        ValueError: where the shapes differ.
    """
    if z_real.shape != z_syn.shape or z_real.ndim != 3:
        raise ValueError(f"latents must share one shape (N, T, D), got {z_real.shape} and {z_syn.shape}")
    real, syn = z_real.astype(np.float64), z_syn.astype(np.float64)
    numbers = {
        f.__name__: f(real, syn)
        for f in (
            std_ratio,
            std_ratio_pooled,
            range_ratio,
            variance_growth,
            lag_match,
            bounds_pass,
        )
    }
    along = drift(real, syn)
    steps = [t for t in (1, *range(10, len(along) + 1, 10)) if t <= len(along)]
    return numbers | {f"drift_{t}": float(along[t - 1]) for t in steps}


def _ratio(synthetic: float, real: float) -> float:
    return float(synthetic / real) if abs(real) > TINY else float("nan")
