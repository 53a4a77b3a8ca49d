import numpy as np
import pytest
from episode_strategies import make_episode
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.episodes.actions import ActionScale, ActionStatistics
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


def test_bounds_far_wider_than_what_was_recorded_are_not_what_actions_are_scaled_by() -> None:
    recorded = ActionScale(np.array([-0.1, -0.9, -3.0, 0.2]), np.array([0.1, 0.8, 3.0, 0.2]))
    low, high = np.float32([-100, -1, -1, -1]), np.float32([100, 1, 1, np.inf])
    scale, wide = recorded.within(low, high)
    assert wide.tolist() == [True, False, False, True]
    np.testing.assert_allclose([scale.low, scale.high], [[-0.1, -1, -1, 0.2], [0.1, 1, 1, 0.2]], rtol=1e-6)


def test_an_outlier_does_not_set_the_range_and_a_rare_switch_does() -> None:
    g, seen = np.random.default_rng(0), ActionStatistics()
    for i in range(50):
        actions = g.uniform(-0.1, 0.1, (40, 2)).astype(np.float32)
        actions[:, 1] = 0.0
        if i == 7:
            actions[3] = 1e4, 1.0
        seen.add(actions)
    scale = seen.range()
    assert 0.1 < scale.high[0] < 0.5
    assert scale.high[1] == 1.0, "used once, and yet no outlier: all others are the same"


def test_actions_beyond_the_bounds_are_counted_but_not_roundings() -> None:
    seen = ActionStatistics(np.float32([-0.1]), np.float32([0.1]))
    seen.count(np.float32([[0.1], [np.nextafter(np.float32(0.1), np.float32(1))], [0.2], [-5.0]]))
    assert (seen.beyond, seen.steps) == (2, 4)


def test_the_range_of_many_actions_takes_bounded_memory() -> None:
    seen = ActionStatistics()
    for i in range(40):
        seen.add(np.full((5000, 1), i, np.float32))
    assert sum(len(part) for part in seen._sample) <= 2**16 + 5000
    assert (seen.range().low[0], seen.range().high[0]) == (0, 39)


def test_infinite_bounds_and_no_recorded_action_name_the_environment() -> None:
    with pytest.raises(DataError, match="environment Far-v0 has infinite action bounds"):
        ActionScale.of_environment(np.float32([-np.inf]), np.float32([np.inf]), "Far-v0")
