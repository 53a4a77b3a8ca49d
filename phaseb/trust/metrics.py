"""How good the trust networks are: the report's numbers, and calibration by level."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.floating]


def roc_auc(real: Floats, synthetic: Floats) -> float:
    """P(a real score exceeds a synthetic one), ties half; NaN where either side is empty."""
    if len(real) == 0 or len(synthetic) == 0:
        return float("nan")
    ranks = rankdata(np.concatenate([real, synthetic]))[: len(real)]
    return float((ranks.sum() - len(real) * (len(real) + 1) / 2) / (len(real) * len(synthetic)))


def val_accuracy(real: Floats, synthetic: Floats) -> float:
    """Mean of the shares of real with trust ≥ ½ and of synthetic below it: chance is ½ whatever the counts."""
    return float((np.mean(np.asarray(real) >= 0.5) + np.mean(np.asarray(synthetic) < 0.5)) / 2)


def trust_gap(real: Floats, synthetic: Floats) -> float:
    """Mean trust of real − mean trust of synthetic (the report's separation)."""
    return float(np.mean(real) - np.mean(synthetic))
