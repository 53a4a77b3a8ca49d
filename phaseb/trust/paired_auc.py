"""How well scores tell two sides apart: AUC of cross-fitted scores, its interval, and its null distribution.

n pairs; the folds are those of the cross-fit. Scores of different folds come from different classifiers and are
never compared with each other: every statistic is a mean over folds.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


def paired_auc(real: Floats, synthetic: Floats, folds: NDArray[np.int64]) -> float:
    """P(a real score exceeds a synthetic one), ties half, within folds; folds weighted by their pairs."""
    return float(_placements(real, synthetic, folds).mean() / 2)


def paired_interval(
    real: Floats, synthetic: Floats, folds: NDArray[np.int64], confidence: float
) -> tuple[float, float]:
    """Interval of `paired_auc` after DeLong et al. (1988), with the pair as the unit, given the fitted classifiers."""
    placements = _placements(real, synthetic, folds)
    auc = placements.mean() / 2
    spread = sum(placements[folds == f].var(ddof=1) * (folds == f).sum() for f in np.unique(folds))
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * np.sqrt(spread) / len(real)
    return float(max(auc - half, 0.0)), float(min(auc + half, 1.0))


def permuted_aucs(
    scores: Sequence[tuple[Floats, Floats]], folds: NDArray[np.int64], num_permutations: int, rng: np.random.Generator
) -> Floats:
    """AUCs (families, permutations) after swapping labels within randomly chosen pairs.

    The same swaps are made for every family, so the distribution of the worst family is theirs as well. Under the
    null hypothesis the members of a pair are exchangeable, so each swap is as likely as what was seen.
    """
    swaps = rng.random((num_permutations, len(folds))) < 0.5
    aucs = np.zeros((len(scores), num_permutations))
    for row, (real, synthetic) in enumerate(scores):
        for fold in np.unique(folds):
            inside = folds == fold
            both = np.concatenate([real[inside], synthetic[inside]])
            beats = (both[:, None] > both[None]) + 0.5 * (both[:, None] == both[None])
            as_real = np.concatenate([~swaps[:, inside], swaps[:, inside]], axis=1).astype(np.float64)
            wins = ((as_real @ beats) * (1 - as_real)).sum(1) / inside.sum() ** 2
            aucs[row] += wins * inside.mean()
    return aucs


def folded(auc: Floats) -> Floats:
    """max(AUC, 1 − AUC): a judge that is reliably wrong tells the sides apart as well."""
    return np.maximum(auc, 1 - auc)


def _placements(real: Floats, synthetic: Floats, folds: NDArray[np.int64]) -> Floats:
    """For each pair: share of the fold's synthetic below its real + share of the fold's real above its synthetic."""
    total = np.zeros(len(real))
    for fold in np.unique(folds):
        inside = folds == fold
        a, b = real[inside], synthetic[inside]
        beats = (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])
        total[inside] = beats.mean(1) + beats.mean(0)
    return total
