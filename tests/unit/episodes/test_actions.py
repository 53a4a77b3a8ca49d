import numpy as np
import pytest
from episode_strategies import make_episode
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.episodes.actions import ActionScale
from phaseb.errors import DataError


def test_the_ends_of_the_range_are_minus_one_and_one() -> None:
    scale = ActionScale(np.array([-2.0, 0.0]), np.array([4.0, 10.0]))
    np.testing.assert_allclose(scale.normalise([[-2, 0], [4, 10], [9, -9]]), [[-1, -1], [1, 1], [1, -1]])
    np.testing.assert_allclose(scale.denormalise([[-1, 1], [0, 0], [7, -7]]), [[-2, 10], [1, 5], [4, 0]])


@settings(deadline=None)
@given(st.floats(-1e6, 1e6, width=32), st.floats(0.0, 1e6, width=32), st.floats(0, 1))
def test_there_and_back_within_float32(low: float, span: float, share: float) -> None:
    scale = ActionScale(np.array([low]), np.array([low + span]))
    action = np.float32([low + share * span])
    assert np.abs(scale.normalise(action)).max() <= 1
    np.testing.assert_allclose(scale.denormalise(scale.normalise(action)), action, atol=1e-6 * (abs(low) + span))


def test_a_dimension_that_never_moves_is_zero() -> None:
    scale = ActionScale(np.array([3.0, -1.0]), np.array([3.0, 1.0]))
    assert scale.normalise([3.0, 1.0]).tolist() == [0, 1]
    assert scale.denormalise([0.7, 1.0]).tolist() == [3, 1]


def test_it_fits_the_recorded_range_and_survives_json() -> None:
    episodes = [make_episode("a", 5, seed=1), make_episode("b", 9, seed=2), make_episode("c", 4, actions=0)]
    scale = ActionScale.fit(episodes)
    recorded = np.concatenate([e.actions for e in episodes if e.actions is not None])
    np.testing.assert_array_equal(scale.low, recorded.min(0))
    np.testing.assert_array_equal(scale.high, recorded.max(0))
    again = ActionScale.from_json(scale.to_json())
    np.testing.assert_array_equal([again.low, again.high], [scale.low, scale.high])
    assert scale.size == 2


def test_no_actions_and_impossible_bounds_are_said() -> None:
    with pytest.raises(DataError, match="no episode carries actions"):
        ActionScale.fit([make_episode("a", 5, actions=0)])
    for low, high in (([1.0], [0.0]), ([0.0], [np.inf]), ([0.0], [1.0, 2.0])):
        with pytest.raises(DataError, match="action bounds"):
            ActionScale(np.array(low), np.array(high))
