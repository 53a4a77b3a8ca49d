"""What is said of observations before training: constant columns, angles that wrap; and units do not matter."""

import numpy as np
import pytest
import torch

from phaseb.episodes.episode import Episode
from phaseb.errors import DataError
from phaseb.latents.decoder import fit_decoder
from phaseb.latents.encoder import Encoder, EncoderSpec
from phaseb.latents.fit import fit_encoder_model
from phaseb.latents.learner import make_learner
from phaseb.latents.observations import clock_columns, examine_observations, wrapping_angles
from phaseb.latents.padding import episode_arrays
from phaseb.nn.data_parallel import WorkerContext


def episode(i, state, frames=None):
    return Episode(
        id=f"e{i}",
        rewards=np.zeros(len(state) - 1, np.float32),
        state=state,
        frames=frames,
        split="train",
        actions=np.zeros((len(state) - 1, 1), np.float32),
    )


def walks(count=12, steps=20, seed=0):
    g = np.random.default_rng(seed)
    return [0.1 * np.cumsum(g.standard_normal((steps + 1, 2)), axis=0) for _ in range(count)]


def test_states_that_never_change_are_refused_naming_the_columns():
    same = [episode(i, np.full((5, 2), 3.0, np.float32)) for i in range(4)]
    with pytest.raises(DataError, match=r"observations never change: state columns 0, 1 .*3\) in all 4 training"):
        examine_observations(same)
    frames = [episode(i, e.state, np.full((5, 4, 4, 3), i, np.uint8)) for i, e in enumerate(same)]
    assert examine_observations(frames) == [
        "state columns 0, 1 never change in the training episodes: policies do not see them"
    ]
    still = [Episode(id=e.id, rewards=e.rewards, frames=np.zeros((5, 4, 4, 3), np.uint8)) for e in same]
    with pytest.raises(DataError, match="frames never change in all 4"):
        examine_observations(still)


@pytest.mark.parametrize("period", [2 * np.pi, 360.0])
def test_an_angle_that_wraps_is_named_and_nothing_else(period):
    g, states = np.random.default_rng(0), []
    for _ in range(20):
        turned = g.uniform(0, period) + np.cumsum(0.03 * period * g.standard_normal(41))
        noise, free = g.uniform(0, period, 41), 0.3 * turned
        switch = np.where(g.random(41) < 0.1, period, 0.0)
        states.append(np.stack([turned % period - period / 2, noise, free, switch], axis=1))
    assert wrapping_angles(states) == {0: pytest.approx(period)}
    (line,) = examine_observations([episode(i, s.astype(np.float32)) for i, s in enumerate(states)])
    assert line.startswith("state column 0 jumps by about")


def test_an_angle_in_turns_is_told_from_what_else_spans_one():
    """A gripper that opens and shuts, with noise, and a share that starts again span a turn as well."""
    g, states = np.random.default_rng(0), []
    for _ in range(20):
        turned = g.uniform() + np.cumsum(g.choice([-1, 1]) * g.uniform(0.01, 0.06, 41))
        gripper = np.clip((np.arange(41) % 9 < 4) + 0.02 * g.standard_normal(41), 0, 1)
        jitter = np.clip((g.random(41) < 0.3) + 0.05 * g.standard_normal(41), 0, 1)
        states.append(np.stack([turned % 1.0, turned % 1.0 - 0.5, gripper, jitter], axis=1))
    assert wrapping_angles(states) == {0: 1.0, 1: 1.0}
    first, _ = examine_observations([episode(i, s.astype(np.float32)) for i, s in enumerate(states)])
    assert first.startswith("state column 0 jumps by about 1, a turn")


UNITS = [(np.array([1e-7, 1e-7]), 0.0), (np.array([1e6, 1e-6]), 0.0), (np.array([1.0, 1e-3]), np.array([1.7e9, 1e4]))]


@pytest.mark.parametrize(("unit", "offset"), UNITS, ids=["micro", "mixed", "clock"])
def test_the_unit_and_the_origin_of_a_sensor_do_not_change_what_is_encoded(unit, offset, small_config):
    """Also an offset that single precision cannot hold beside what moves: it comes off in double."""
    encoded = []
    for scale, shift in ((1.0, 0.0), (unit, offset)):
        episodes = [episode(i, s * scale + shift) for i, s in enumerate(walks())]
        learner = make_learner(small_config, episode_arrays(episodes, None, "state"), WorkerContext(0))
        for step in range(learner.num_steps):
            learner.step(step)
        bundle = fit_encoder_model(small_config, learner.encoder, episodes, None, 0)
        online = bundle.online(1)
        live = [online.reset({"state": episodes[0].state[:1]})]
        live += [online.step({"state": episodes[0].state[t : t + 1]}) for t in range(1, 21)]
        found = bundle.encode_episode(episodes[0])
        np.testing.assert_allclose(np.concatenate(live), found, atol=1e-5)
        encoded.append(found)
    assert np.abs(encoded[0]).std() > 0.3
    np.testing.assert_allclose(encoded[1], encoded[0], atol=0.02)


def clocked(tick, spread=3000.0, count=12):
    """Walks with a third column: a clock of these ticks from a start anywhere in `spread`."""
    g = np.random.default_rng(1)
    return [
        np.column_stack([walk, 1.7e9 + g.uniform(0, spread) + np.cumsum(tick(g, len(walk)))])
        for walk in walks(count=count)
    ]


def test_a_clock_that_starts_anywhere_is_named_and_not_seen(small_config):
    even = clocked(lambda g, n: np.full(n, 0.05))
    assert clock_columns(even).tolist() == [False, False, True]
    assert clock_columns(clocked(lambda g, n: g.exponential(0.05, n))).tolist() == [False, False, True]
    assert clock_columns([s[:, [0, 2]] * [1.0, -1.0] for s in even]).tolist() == [False, True]
    (line,) = examine_observations([episode(i, s) for i, s in enumerate(even)])
    assert line.startswith("state column 2: a clock that starts anywhere")
    learner = make_learner(
        small_config, episode_arrays([episode(i, s) for i, s in enumerate(even)], None, "state"), WorkerContext(0)
    )
    assert (learner.encoder.state_scale == 0).tolist() == [False, False, True]


def test_a_clock_of_whole_seconds_is_one_too_and_what_an_episode_holds_is_not():
    whole = [np.column_stack([s[:, :2], np.floor(s[:, 2])]) for s in clocked(lambda g, n: np.full(n, 0.25))]
    assert clock_columns(whole).tolist() == [False, False, True]
    goals = [np.column_stack([s[:, :2], np.full(len(s), 100.0 * i)]) for i, s in enumerate(whole)]
    assert not clock_columns(goals).any()
    goals[0][-1, 2] += 1.0
    assert not clock_columns(goals).any()


def test_time_since_the_start_and_a_clock_beside_nothing_else_are_seen():
    even = clocked(lambda g, n: np.full(n, 0.05), spread=0.0)
    assert not clock_columns(even).any()
    assert not clock_columns(clocked(lambda g, n: np.where(np.arange(n) == 3, -1.0, 0.05))).any()
    alone = clocked(lambda g, n: np.full(n, 0.05))
    assert not clock_columns([s[:, 2:] for s in alone]).any()
    assert not clock_columns(alone[:1]).any()


def test_a_sensor_that_never_moved_does_not_explode_when_it_does():
    encoder = Encoder(EncoderSpec(2, None, 3, 1, 8, 8, 8))
    states = torch.stack([torch.randn(50), torch.full((50,), 3e4)], 1)
    encoder.fit_inputs(states, None)
    assert encoder.normalise(torch.tensor([[0.0, 9e9]]))[0, 1] == 0


def test_a_decoder_serves_sensors_of_very_different_units():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(600, 2, generator=g)
    state = torch.stack([1e6 * z[:, 0], 1e-3 * z[:, 1]], 1).double() + torch.tensor([1.7e9, 0.0]).double()
    decoder = fit_decoder(z, state, 16, 5, 0)
    left = (decoder(z) - state).std(0) / state.std(0)
    assert left.max() < 0.2, left
