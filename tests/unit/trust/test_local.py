import numpy as np
import pytest

from phaseb.trust.dataset import crop
from phaseb.trust.one_step_residuals import fit_ridge_dynamics


def test_the_error_is_in_units_of_what_is_usual_on_unseen_episodes(trajectories) -> None:  # type: ignore[no-untyped-def]
    real, held_out = trajectories(25, seed=0), trajectories(100, seed=1)
    predictor = fit_ridge_dynamics(real, np.arange(25) % 5, 32, seed=0)
    errors = np.stack([predictor.errors(held_out, k) for k in range(5)])
    assert errors.shape == (5, 100, 30, 5)
    assert np.sqrt((errors**2).mean((0, 1, 2))) == pytest.approx(np.ones(5), abs=0.15)
    # The noise of 0.02 in z_t and z_{t+1} is all that a perfect predictor would leave: √(1 + 0.95²) · 0.02.
    assert predictor.error_scale[:4].numpy() == pytest.approx(np.full(4, 0.0276), rel=0.25)


def test_each_fold_is_fitted_without_its_own_episodes(trajectories) -> None:  # type: ignore[no-untyped-def]
    real = trajectories(10, seed=0)
    folds = np.arange(10) % 2
    before = fit_ridge_dynamics(real, folds, 8, seed=0)
    real.rewards[folds == 0] *= 1.05
    after = fit_ridge_dynamics(real, folds, 8, seed=0)
    changed = [not np.allclose(before.reward_weights[k], after.reward_weights[k], atol=1e-5) for k in (0, 1)]
    assert changed == [False, True]


def test_a_silent_reward_and_padding_are_no_evidence(trajectories) -> None:  # type: ignore[no-untyped-def]
    real = trajectories(10, seed=0)
    real.rewards[:] = 0.0
    predictor = fit_ridge_dynamics(real, np.arange(10) % 2, 8, seed=0)
    short = crop(trajectories(10, seed=1), np.zeros(10, int), np.full(10, 12))
    errors = predictor.errors(short, 0)
    assert (errors[..., -1] == 0).all()
    assert (errors[:, 12:] == 0).all()
    assert (errors[:, :12, :-1] != 0).all()


def test_an_exploding_rollout_stays_finite(trajectories) -> None:  # type: ignore[no-untyped-def]
    real = trajectories(10, seed=0)
    predictor = fit_ridge_dynamics(real, np.arange(10) % 2, 8, seed=0)
    wild = trajectories(3, seed=1)
    wild.z[:, 5:] *= 1e12
    assert np.isfinite(predictor.errors(wild, 0)).all()


def test_one_dimension_and_one_step_will_do(trajectories) -> None:  # type: ignore[no-untyped-def]
    real = trajectories(10, seed=0, num_steps=1, num_dimensions=1)
    predictor = fit_ridge_dynamics(real, np.arange(10) % 2, 4, seed=0)
    assert np.isfinite(predictor.errors(real, 1)).all()
