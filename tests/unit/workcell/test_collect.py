"""Collected episodes: a pure function of (config, seed, number), and playable again."""

import functools

import numpy as np
import pytest

from phaseb.config.data import EnvironmentConfig
from phaseb.episodes.episode import METRICS
from phaseb.errors import DataError
from phaseb.workcell.collect import collect_episodes, replay_episodes
from phaseb.workcell.physics import CellParameters

CONFIG = EnvironmentConfig(max_steps=20)


def assert_same(one, two):
    """But for rounding, which may depend on how many cells are stepped at once."""
    for name in ("state", "actions", "rewards"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(one.frames, two.frames, atol=1)  # one level of 255
    assert (one.id, one.tags) == (two.id, two.tags)
    assert one.metrics.keys() == two.metrics.keys()
    np.testing.assert_allclose(list(one.metrics.values()), list(two.metrics.values()), rtol=1e-6, atol=1e-9)


def test_an_episode_is_what_it_says():
    episode = collect_episodes(CONFIG, 5, [12])[0]
    assert episode.id == "real-000012"
    assert episode.state.shape == (21, 8)
    assert episode.frames.shape == (21, 64, 64, 3)
    assert episode.actions.shape == (20, 2)
    assert np.abs(episode.actions).max() <= 1
    assert set(episode.metrics) == set(METRICS)
    assert episode.tags["operator"] in ("skilled", "average", "hasty")
    assert float(episode.tags["operator_pace"]) > 0
    assert not episode.terminated


def test_whoever_collects_the_episode_is_the_same():
    together = collect_episodes(CONFIG, 5, range(6))
    for part in ([4], [5, 0], [3, 2, 1]):
        for number, episode in zip(part, collect_episodes(CONFIG, 5, part), strict=True):
            assert_same(episode, together[number])


def test_seeds_and_numbers_differ():
    one, two = collect_episodes(CONFIG, 5, [0, 1])
    other = collect_episodes(CONFIG, 6, [0])[0]
    assert not np.array_equal(one.state, two.state)
    assert not np.array_equal(one.state, other.state)


def test_observation_modes_show_the_same_episode():
    both = collect_episodes(CONFIG, 5, [0])[0]
    frames = collect_episodes(CONFIG.model_copy(update={"observation": "frames"}), 5, [0])[0]
    state = collect_episodes(CONFIG.model_copy(update={"observation": "state"}), 5, [0])[0]
    assert frames.state is None
    assert state.frames is None
    np.testing.assert_array_equal(frames.frames, both.frames)
    np.testing.assert_array_equal(state.state, both.state)
    np.testing.assert_array_equal(frames.actions, both.actions)


def test_nothing_asked_nothing_given():
    assert collect_episodes(CONFIG, 5, []) == []
    assert replay_episodes(CONFIG, [], 0) == []


def test_played_again_only_the_noise_differs():
    recorded = collect_episodes(CONFIG, 5, range(8))
    again, once_more = replay_episodes(CONFIG, recorded, 1), replay_episodes(CONFIG, recorded, 2)
    for old, new, other in zip(recorded, again, once_more, strict=True):
        np.testing.assert_array_equal(old.actions, new.actions)
        np.testing.assert_array_equal(old.rewards, new.rewards)
        np.testing.assert_array_equal(old.frames, new.frames)
        np.testing.assert_equal(dict(old.metrics), dict(new.metrics))
        assert not np.array_equal(old.state, new.state)
        assert not np.array_equal(new.state, other.state)
        assert np.abs(old.state - new.state).max() < 0.1


def test_without_noise_a_replay_is_the_episode(monkeypatch):
    quiet = functools.partial(CellParameters, sensor_noise=0)
    monkeypatch.setattr("phaseb.workcell.batch.CellParameters", quiet)
    config = EnvironmentConfig(max_steps=20, observation="state")
    recorded = collect_episodes(config, 5, range(4))
    for old, new in zip(recorded, replay_episodes(config, recorded, 1), strict=True):
        np.testing.assert_array_equal(old.state, new.state)


def test_what_cannot_be_played_again_is_refused():
    recorded = collect_episodes(CONFIG, 5, [0])[0]
    with pytest.raises(DataError, match="real-000000 cannot be played again"):
        replay_episodes(CONFIG, [type(recorded)(id=recorded.id, rewards=recorded.rewards, state=recorded.state)], 1)
