"""Episodes by a named policy in an environment that Gymnasium has."""

import numpy as np
import pytest

from phaseb.collection.gymnasium import collect_gymnasium_episodes
from phaseb.config.data import EnvironmentConfig
from phaseb.errors import ConfigError

PENDULUM = EnvironmentConfig(id="Pendulum-v1", max_steps=12)


class Still:
    """A policy that does nothing."""

    def __init__(self, environment):
        self._shape = environment.action_low.shape

    def reset(self, seeds):
        self._num = len(seeds)

    def act(self, observation):
        return np.zeros((self._num, *self._shape), np.float32)


class Idle:
    def __init__(self, environment):
        pass


def test_an_episode_follows_from_its_number_alone():
    together = collect_gymnasium_episodes(PENDULUM, 7, range(20), "random")
    alone = collect_gymnasium_episodes(PENDULUM, 7, [3, 17], "random")
    for one, episode in zip((3, 17), alone, strict=True):
        np.testing.assert_array_equal(episode.state, together[one].state)
        np.testing.assert_array_equal(episode.actions, together[one].actions)
    assert [e.id for e in alone] == ["real-000003", "real-000017"]
    assert together[0].state.shape == (13, 3)
    assert len({e.actions.tobytes() for e in together}) == 20
    assert not np.array_equal(collect_gymnasium_episodes(PENDULUM, 8, [3], "random")[0].state, alone[0].state)


def test_random_actions_fill_the_bounds():
    actions = np.concatenate([e.actions for e in collect_gymnasium_episodes(PENDULUM, 0, range(20), "random")])
    assert -2 <= actions.min() < -1.7
    assert 1.7 < actions.max() <= 2
    assert abs(actions.mean()) < 0.3


def test_a_policy_of_ones_own_acts():
    (episode,) = collect_gymnasium_episodes(PENDULUM, 0, [0], f"{__name__}:Still")
    assert not episode.actions.any()
    assert episode.tags["policy"] == f"{__name__}:Still"


def test_the_built_in_cell_can_be_acted_in_too():
    (episode,) = collect_gymnasium_episodes(EnvironmentConfig(max_steps=5, observation="frames"), 0, [0], "random")
    assert episode.state is None
    assert episode.frames.shape == (6, 64, 64, 3)


@pytest.mark.parametrize(
    ("config", "policy", "message"),
    [
        (EnvironmentConfig(id="none"), "random", "set environment.id"),
        (PENDULUM, "nowhere:Policy", "nowhere"),
        (PENDULUM, f"{__name__}:Idle", "has no reset"),
    ],
)
def test_what_cannot_act_is_said(config, policy, message):
    with pytest.raises(ConfigError, match=message):
        collect_gymnasium_episodes(config, 0, [0], policy)
