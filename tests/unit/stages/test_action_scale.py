"""Which range actions are scaled by, and what is said of it."""

from dataclasses import replace

import numpy as np
import pytest
from episode_strategies import make_episode

from phaseb.errors import DataError
from phaseb.pipeline.dataset_stats import DatasetStats
from phaseb.stages.collect import choose_action_scale


def seen(actions, low, high):
    """The census of ten training episodes with these actions (10, T, A), and the bounds."""
    bounds = np.float32(low), np.float32(high)
    episodes = [
        replace(make_episode(f"e{i}", len(a), seed=i, split="train"), actions=np.float32(a))
        for i, a in enumerate(actions)
    ]
    return bounds, DatasetStats.of(episodes, bounds)


def test_actions_beyond_the_bounds_are_counted_and_said():
    actions = np.linspace(-2, 2, 200).reshape(10, 20, 1)
    scale, notices = choose_action_scale("Pusher-v5", *seen(actions, [-0.5], [0.5]))
    np.testing.assert_array_equal([scale.low, scale.high], [[-0.5], [0.5]])
    (line,) = notices
    assert line == (
        "150 of 200 recorded actions lie beyond the bounds of environment Pusher-v5 (-0.5 to 0.5; recorded -2 to 2): "
        "they are clipped, as the environment clips them"
    )


@pytest.mark.parametrize("bound", [100.0, np.inf, 3.4e38])
def test_bounds_that_say_nothing_are_not_what_policies_are_scaled_by(bound):
    actions = np.random.default_rng(0).uniform(-0.1, 0.1, (10, 20, 1))
    scale, notices = choose_action_scale("Arm-v0", *seen(actions, [-bound], [bound]))
    np.testing.assert_allclose([scale.low[0], scale.high[0]], [actions.min(), actions.max()], rtol=1e-5)
    (line,) = notices
    assert line.startswith("the action bounds of environment Arm-v0 (")
    assert "dimensions 0 are scaled by the recorded range (-0.09" in line


def test_bounds_that_were_used_stay_and_nothing_is_said():
    actions = np.random.default_rng(0).uniform(-0.4, 0.4, (10, 20, 2))
    scale, notices = choose_action_scale("workcell", *seen(actions, [-1, -1], [1, 1]))
    np.testing.assert_array_equal([scale.low, scale.high], [[-1, -1], [1, 1]])
    assert notices == []


def test_actions_of_another_size_are_refused():
    actions = np.zeros((10, 20, 3))
    with pytest.raises(DataError, match=r"have \[3\] dimensions, environment Arm-v0 takes 1"):
        choose_action_scale("Arm-v0", *seen(actions, [-1], [1]))


def test_without_actions_there_is_no_scale_and_without_training_actions_the_bounds():
    bounds = np.float32([-1, -1]), np.float32([1, 1])
    none = DatasetStats.of([make_episode("a", 3, actions=0, split="train")], bounds)
    assert choose_action_scale("x", bounds, none) == (None, [])
    dev = DatasetStats.of([make_episode("a", 3, split="dev"), make_episode("b", 3, actions=0, split="train")], bounds)
    scale, _ = choose_action_scale("x", bounds, dev)
    np.testing.assert_array_equal([scale.low, scale.high], bounds)
