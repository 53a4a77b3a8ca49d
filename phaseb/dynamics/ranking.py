"""Agreement of returns in a generator with returns in physics, over a pool of P policies."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

Array = NDArray[np.floating]


def ranking(estimated: Array, true: Array) -> dict[str, float]:
    """Pearson and Spearman correlation and MMRV of estimated returns (P,) with true ones (P,).

    NaN where there are fewer than three policies, or no two of them differ.
    """
    if len(true) < 3 or np.ptp(estimated) == 0 or np.ptp(true) == 0:
        return dict.fromkeys(("pearson", "spearman", "mmrv"), float("nan"))
    return {
        "pearson": float(pearsonr(estimated, true).statistic),
        "spearman": float(spearmanr(estimated, true).statistic),
        "mmrv": rank_violation(estimated, true),
    }


def rank_violation(estimated: Array, true: Array) -> float:
    """Mean maximum rank violation, in units of return (Li et al. 2024, SIMPLER).

    For each policy: the largest difference of true returns to a policy that the estimate ranks on the other side of it.
    """
    gap = np.abs(true[:, None] - true[None])
    violated = (estimated[:, None] < estimated[None]) != (true[:, None] < true[None])
    return float(np.where(violated, gap, 0.0).max(1).mean())
