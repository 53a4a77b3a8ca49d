"""The cell by the Gymnasium API."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from phaseb.workcell import BatchedCell, GantryCell, register


@pytest.mark.parametrize("observation", ["state", "frames", "both"])
def test_passes_gymnasiums_checks(observation):
    environment = gymnasium.make("phaseb/GantryCell-v0", observation=observation, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(environment.unwrapped)


def test_registering_again_does_nothing():
    register()
    assert isinstance(gymnasium.make("phaseb/GantryCell-v0").unwrapped, GantryCell)


def test_is_one_of_the_batch():
    batch, single = BatchedCell(3, "both"), GantryCell("both")
    actions = np.random.default_rng(0).uniform(-1, 1, (60, 3, 2)).astype(np.float32)
    expected = batch.reset([7, 8, 9])
    observation, info = single.reset(seed=8)
    for action in actions:
        for name in ("state", "frames"):
            np.testing.assert_array_equal(observation[name], expected[name][1])
        expected, rewards, terminated, truncated, _ = batch.step(action)
        observation, reward, ended, cut, info = single.step(action[1])
        assert (reward, ended, cut) == (rewards[1], terminated[1], truncated[1])
    assert cut
    for name, values in batch.economics().items():
        np.testing.assert_equal(info["economics"].get(name, np.nan), values[1])
    for name, values in batch.true_state().items():
        assert info["true_state"][name] == values[1]


def test_resets_without_a_seed_go_on_to_new_episodes():
    environment = GantryCell()
    first, _ = environment.reset(seed=1)
    second, _ = environment.reset()
    third, _ = environment.reset()
    assert len({first[7], second[7], third[7]}) == 3
    environment.reset(seed=1)
    np.testing.assert_array_equal(environment.reset()[0], second)


def test_the_noise_seed_redraws_noise_only():
    environment = GantryCell()
    one, info_one = environment.reset(seed=1)
    two, info_two = environment.reset(seed=1, options={"noise_seed": 99})
    assert info_one == info_two
    assert not np.array_equal(one, two)


def test_renders_only_when_asked():
    silent, drawn = GantryCell(), GantryCell(render_mode="rgb_array")
    silent.reset(seed=0)
    drawn.reset(seed=0)
    assert silent.render() is None
    assert drawn.render().shape == (64, 64, 3)
