"""Scores to probabilities, and how far those probabilities are off (Guo et al. 2017)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

Floats = NDArray[np.floating]
CEILING = 0.999  # no score of a finite sample earns certainty


@dataclass(frozen=True)
class Calibrator:
    """A monotone map from scores (…, S) to p(real).

    It is a sigmoid of a weighted sum of the S log-odds, weights ≥ 0 (one weight is 1 / temperature).
    """

    weights: NDArray[np.float64]
    bias: float

    def __call__(self, scores: Floats) -> NDArray[np.float64]:
        p = expit(scores.astype(np.float64) @ self.weights + self.bias)
        return np.asarray(np.clip(p, 1 - CEILING, CEILING))


def fit_calibrator(scores: Floats, labels: Floats, weights: Floats) -> Calibrator:
    """Fit on held-out scores (n, S) by weighted cross-entropy; labels (n,) in {0, 1}, weights (n,) ≥ 0."""
    x, y, w = (np.asarray(array, dtype=np.float64) for array in (scores, labels, weights))
    w = w / w.sum()

    def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = x @ theta[:-1] + theta[-1]
        slope = w * (expit(odds) - y)
        # A touch of ridge keeps perfectly separated scores from an infinite slope.
        value = float((w * (np.logaddexp(0, odds) - y * odds)).sum() + 1e-4 * (theta**2).sum())
        return value, np.append(slope @ x, slope.sum()) + 2e-4 * theta

    start = np.append(np.full(x.shape[1], 1 / x.shape[1]), 0.0)
    bounds = [(1e-3, None)] * x.shape[1] + [(None, None)]
    theta = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    return Calibrator(theta[:-1], float(theta[-1]))


def reliability(p: Floats, labels: Floats, weights: Floats | None = None, num_bins: int = 10) -> list[dict[str, float]]:
    """The reliability diagram: of each occupied bin of equal width, mean p, share of real, and share of the weight."""
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    place = np.minimum((np.asarray(p) * num_bins).astype(np.int64), num_bins - 1)
    rows = []
    for b in range(num_bins):
        here = (place == b) & (w > 0)
        if here.any():
            mean, real = np.average(p[here], weights=w[here]), np.average(labels[here], weights=w[here])
            rows.append({"p": float(mean), "real": float(real), "share": float(w[here].sum() / w.sum())})
    return rows


def expected_calibration_error(p: Floats, labels: Floats, weights: Floats | None = None, num_bins: int = 10) -> float:
    """ECE = Σ_bins share · |mean p − share of real|."""
    return float(sum(row["share"] * abs(row["p"] - row["real"]) for row in reliability(p, labels, weights, num_bins)))


def balanced_weights(labels: Floats) -> NDArray[np.float64]:
    """Weights that give both labels the same total: the prior of one half that the gate's odds assume."""
    labels = np.asarray(labels)
    share = np.clip(labels.mean(), 1e-9, 1 - 1e-9)
    return np.where(labels > 0.5, 0.5 / share, 0.5 / (1 - share))
