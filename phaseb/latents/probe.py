"""What a linear reader finds in z_V: regression for quantities, a linear classifier for yes or no."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

Floats = NDArray[np.floating]


def linear_probe(
    train_z: Floats, train_targets: Mapping[str, Floats], test_z: Floats, test_targets: Mapping[str, Floats]
) -> dict[str, float]:
    """How well linear functions of z predict each target on held-out rows.

    Args:
        train_z, test_z: (M, D) latents; split them by episode.
        train_targets, test_targets: (M,) each by name; one of two values is classified, others are regressed.

    Returns:
        R² by name, accuracy for two-valued targets; NaN where a target is constant in training or test.
    """
    scaler = StandardScaler().fit(train_z)
    x, held_out = scaler.transform(train_z), scaler.transform(test_z)
    scores = {}
    for name, target in train_targets.items():
        y, truth = target.astype(np.float64), test_targets[name].astype(np.float64)  # squares of small units underflow
        values = np.unique(y)
        if len(values) < 2 or len(truth) < 2:
            scores[name] = float("nan")
        elif len(values) == 2:
            model = LogisticRegression(C=100.0, max_iter=2000).fit(x, y == values[1])
            scores[name] = float((model.predict(held_out) == (truth == values[1])).mean())
        elif np.ptp(truth) == 0:
            scores[name] = float("nan")
        else:
            regression = RidgeCV(alphas=np.logspace(-4, 3, 8)).fit(x, y)
            scores[name] = float(r2_score(truth, regression.predict(held_out)))
    return scores
