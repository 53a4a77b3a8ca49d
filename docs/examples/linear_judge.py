"""A judge: logistic regression on how far each latent moves in a step, over a whole episode."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from phaseb.config.trust import JudgeConfig
from phaseb.trust.judges import JudgeInputs, Scores


def linear_judge(evidence: JudgeInputs, config: JudgeConfig, seed: int) -> Scores:
    """Scores (n,) of the real and of the synthetic member of each pair; higher is more real."""
    real, synthetic = (_features(z) for z in (evidence.real, evidence.synthetic))
    scores = np.zeros((2, len(real)))
    for fold in np.unique(evidence.folds):
        inside = evidence.folds != fold  # a pair is scored by a classifier that saw neither member
        model = LogisticRegression(max_iter=200, random_state=seed % 2**32)
        labels = np.repeat([1, 0], inside.sum())
        model.fit(np.concatenate([real[inside], synthetic[inside]]), labels)
        scores[0, ~inside] = model.decision_function(real[~inside])
        scores[1, ~inside] = model.decision_function(synthetic[~inside])
    return scores[0], scores[1]


def _features(z: np.ndarray) -> np.ndarray:
    """(n, T+1, D) to the mean and the spread of steps, (n, 2 D)."""
    steps = np.abs(np.diff(z, axis=1))
    return np.concatenate([steps.mean(1), steps.std(1)], axis=1)
