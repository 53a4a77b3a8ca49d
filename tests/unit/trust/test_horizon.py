import numpy as np

from phaseb.trust.horizon import break_even_horizon, error_by_step, survival


def test_error_is_the_root_mean_square_over_dimensions() -> None:
    real = np.zeros((1, 3, 2))
    predicted = np.array([[[9.0, 9.0], [3.0, 4.0], [0.0, 0.0]]])
    assert np.allclose(error_by_step(real, predicted), [[np.sqrt(12.5), 0.0]])


def test_break_even_is_the_last_step_that_beats_standing_still() -> None:
    real = np.cumsum(np.ones((4, 11, 1)), axis=1)
    ahead = real.copy()
    ahead[:, 6:] += np.array([10, 1, 1, 1, 1])[None, :, None]  # at step 6 the error is 10, standing still has 6
    assert break_even_horizon(real, ahead) == 5
    assert break_even_horizon(real, real) == 10
    assert break_even_horizon(real, np.repeat(real[:, :1], 11, axis=1)) == 0


def test_what_died_stays_dead() -> None:
    error = np.array([[0.1, 2.0, 0.1], [0.1, 0.1, 0.1]])
    assert survival(error, 1.0).tolist() == [1.0, 0.5, 0.5]
