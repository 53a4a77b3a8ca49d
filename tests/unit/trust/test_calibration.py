import numpy as np
import pytest
from scipy.special import expit

from phaseb.trust.calibration import (
    CEILING,
    balanced_weights,
    expected_calibration_error,
    fit_calibrator,
    reliability,
)


def draw(n: int, seed: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds that are `temperature` times too large, and labels drawn from the true ones."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 2, n)
    return odds * temperature, (rng.random(n) < expit(odds)).astype(float)


def test_the_temperature_is_recovered() -> None:
    scores, labels = draw(20_000, 0, temperature=3.0)
    calibrator = fit_calibrator(scores[:, None], labels, np.ones(len(labels)))
    assert calibrator.weights[0] == pytest.approx(1 / 3, rel=0.05)
    assert calibrator.bias == pytest.approx(0, abs=0.05)


def test_held_out_scores_become_calibrated() -> None:
    scores, labels = draw(5_000, 0, temperature=4.0)
    unseen, truth = draw(5_000, 1, temperature=4.0)
    calibrator = fit_calibrator(scores[:, None], labels, np.ones(5_000))
    assert expected_calibration_error(expit(unseen), truth) > 0.1
    assert expected_calibration_error(calibrator(unseen[:, None]), truth) < 0.025
    assert (np.diff(calibrator(np.linspace(-20, 20, 200)[:, None])) >= 0).all()


def test_a_useless_score_gets_no_weight_and_none_gets_a_negative_one() -> None:
    scores, labels = draw(5_000, 0)
    rng = np.random.default_rng(1)
    both = fit_calibrator(np.stack([scores, rng.normal(size=5_000)], 1), labels, np.ones(5_000))
    assert both.weights[0] == pytest.approx(1, abs=0.1)
    assert both.weights[1] < 0.1
    assert fit_calibrator(-scores[:, None], labels, np.ones(5_000)).weights[0] == pytest.approx(1e-3)


def test_separated_scores_do_not_earn_certainty() -> None:
    scores = np.concatenate([np.full(50, 40.0), np.full(50, -40.0)])
    p = fit_calibrator(scores[:, None], (scores > 0).astype(float), np.ones(100))(scores[:, None])
    assert p.max() <= CEILING
    assert p.min() >= 1 - CEILING
    assert p.max() > 0.9


def test_ece_by_hand() -> None:
    p, labels = np.array([0.15, 0.18, 0.95, 1.0]), np.array([0, 1, 1, 1])
    assert expected_calibration_error(p, labels) == pytest.approx(0.5 * abs(0.165 - 0.5) + 0.5 * 0.025)
    assert expected_calibration_error(p, labels, np.array([1, 0, 0, 0])) == pytest.approx(0.15)
    assert [row["share"] for row in reliability(p, labels)] == [0.5, 0.5]


def test_balanced_weights_give_both_labels_half() -> None:
    labels = np.array([1, 0, 0, 0])
    weights = balanced_weights(labels)
    assert weights[labels == 1].sum() == weights[labels == 0].sum() == 2
