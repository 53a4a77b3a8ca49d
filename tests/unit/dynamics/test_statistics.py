"""Latent statistics against closed forms and independent computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from phaseb.dynamics import statistics as S  # noqa: N812


@pytest.fixture
def real():
    return np.random.default_rng(0).normal(size=(40, 60, 3)).cumsum(axis=1)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_scaling_and_shifting(scale, shift):
    z = np.random.default_rng(1).normal(size=(20, 30, 2)).cumsum(axis=1)
    synthetic = scale * z + shift
    assert S.std_ratio(z, synthetic) == pytest.approx(scale)
    assert S.std_ratio_pooled(z, synthetic) == pytest.approx(scale)
    assert S.range_ratio(z, synthetic) == pytest.approx(scale)
    assert S.variance_growth(z, synthetic) == pytest.approx(1.0)
    assert S.lag_match(z, synthetic) == pytest.approx(abs(np.log(scale**2)), abs=1e-6)


def test_identical_sets_are_perfect(real):
    numbers = S.latent_statistics(real, real)
    for name in ("std_ratio", "std_ratio_pooled", "range_ratio", "variance_growth"):
        assert numbers[name] == pytest.approx(1.0)
    assert numbers["lag_match"] == 0
    assert numbers["drift_60"] == 0
    assert numbers["bounds_pass"] >= 0.9
    assert sorted(n for n in numbers if n.startswith("drift")) == sorted(
        f"drift_{t}" for t in (1, 10, 20, 30, 40, 50, 60)
    )


def test_std_ratio_by_a_loop(real):
    synthetic = np.random.default_rng(3).normal(size=real.shape)
    mean_std = [np.mean([np.std(z[n, :, d]) for n in range(40) for d in range(3)]) for z in (real, synthetic)]
    assert S.std_ratio(real, synthetic) == pytest.approx(mean_std[1] / mean_std[0])
    assert S.std_ratio(real, np.tile(real[:, :1], (1, 60, 1))) < 1e-12


def test_pooled_and_per_dimension_std_differ_where_dimensions_lie_apart(real):
    apart = real + np.array([0, 50, 100])
    assert S.std_ratio(apart, real) == pytest.approx(1.0)
    assert S.std_ratio_pooled(apart, real) < 0.2


def test_variance_growth_closed_form():
    rng = np.random.default_rng(5)
    real = rng.normal(size=(4000, 40, 2))
    synthetic = real * np.sqrt(np.linspace(1, 4, 40))[:, None]
    expected = np.linspace(1, 4, 40)[-10:].mean() / np.linspace(1, 4, 40)[:10].mean()
    assert S.variance_growth(real, synthetic) == pytest.approx(expected, rel=0.02)


def test_lag_match_of_a_random_walk_against_white_noise():
    rng = np.random.default_rng(6)
    walk, noise = rng.normal(size=(3000, 40, 1)).cumsum(axis=1), rng.normal(size=(3000, 40, 1))
    expected = np.mean([abs(np.log(2 / k)) for k in (1, 2, 5, 10)])
    assert S.lag_match(walk, noise) == pytest.approx(expected, abs=0.01)


def test_drift_is_the_wasserstein_distance(real):
    other = np.random.default_rng(7).normal(size=real.shape)
    along = S.drift(real, other)
    expected = np.mean([wasserstein_distance(real[:, 9, d], other[:, 9, d]) for d in range(3)])
    assert along[9] == pytest.approx(expected)
    assert S.drift(real, real + 2.0) == pytest.approx(np.full(60, 2.0))


def test_bounds_pass_counts_episodes_out_of_bounds(real):
    synthetic = real.copy()
    synthetic[:10] += 100
    synthetic[10:15] *= 50
    inside = S.bounds_pass(real, real)
    assert S.bounds_pass(real, synthetic) <= inside - 11 / 40
    assert S.bounds_pass(real, real + 1000) == 0


def test_rmse_break_even_and_survival():
    truth = np.zeros((5, 20, 2))
    predicted = np.broadcast_to(np.arange(20)[:, None] * 0.1, truth.shape)
    assert S.open_loop_rmse(truth, predicted) == pytest.approx(np.arange(20) * 0.1)
    assert S.break_even_horizon(np.full((5, 2), 0.95), truth, predicted) == 10
    assert S.break_even_horizon(np.full((5, 2), 99.0), truth, predicted) == 20
    alive = S.survival(truth, predicted, limit=1.0)
    assert alive[8] == 1
    assert alive[11] == 0


def test_dead_dimensions_do_not_spoil_the_numbers(real):
    dead = real.copy()
    dead[..., 1] = 3.0
    numbers = S.latent_statistics(dead, dead)
    assert all(np.isfinite(v) for v in numbers.values())
    frozen = dead.copy()
    frozen[..., 0] = 0.0
    assert S.lag_match(dead, frozen) > 1


def test_uncertainty_correlation_and_memorising():
    rng = np.random.default_rng(8)
    truth = np.zeros((50, 10, 2))
    size = rng.random(50)
    predicted = truth + size[:, None, None]
    assert S.uncertainty_correlation(np.tile(size[:, None] ** 3, (1, 10)), truth, predicted) == pytest.approx(1)
    training = rng.normal(size=(30, 10, 2))
    assert S.nearest_distance(training[:4], training) == pytest.approx(np.zeros(4), abs=1e-6)
    z = rng.normal(size=(3, 10, 2))
    expected = [min(np.sqrt(((a - b) ** 2).mean()) for b in training) for a in z]
    assert S.nearest_distance(z, training) == pytest.approx(expected)


def test_unequal_shapes_are_refused(real):
    with pytest.raises(ValueError, match="share one shape"):
        S.latent_statistics(real, real[:, :-1])
