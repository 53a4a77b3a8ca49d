"""On the real cell: what a linear reader finds in z_V, from the state alone (frames take longer: see benchmarks)."""

import numpy as np
import pytest

from phaseb.config.data import EnvironmentConfig
from phaseb.config.encoder import LatentsConfig
from phaseb.latents.fit import fit_encoder_model
from phaseb.latents.learner import make_learner
from phaseb.latents.padding import episode_arrays
from phaseb.latents.probe import linear_probe
from phaseb.nn.data_parallel import WorkerContext
from phaseb.workcell.collect import collect_episodes, replay_episodes

CONFIG = LatentsConfig(decoder_steps=200)


@pytest.fixture(scope="module")
def cell():
    environment = EnvironmentConfig(observation="state")
    episodes = collect_episodes(environment, 3, range(70))
    learner = make_learner(CONFIG, episode_arrays(episodes[:50]), WorkerContext(0))
    for step in range(learner.num_steps):
        learner.step(step)
    bundle = fit_encoder_model(CONFIG, learner.encoder, episodes[:50])
    again = replay_episodes(environment, episodes[50:], noise_seed=1)
    return episodes, bundle, again


def quantities(episodes):
    """By name, from measured states, whose noise is small (1 mm, 0.1°)."""
    state = np.concatenate([e.state for e in episodes]).astype(np.float64)
    hook = state[:, 0] + np.sin(state[:, 2])
    return {"cart": state[:, 0], "hook": hook, "swing": state[:, 2], "loaded": np.sign(state[:, 4])}


def test_a_linear_probe_reads_cart_hook_swing_and_load(cell):
    episodes, bundle, _ = cell
    known, held_out = (bundle.encode(x).z.reshape(-1, bundle.num_dims) for x in (episodes[:50], episodes[50:]))
    scores = linear_probe(known, quantities(episodes[:50]), held_out, quantities(episodes[50:]))
    assert scores["loaded"] >= 0.99
    assert min(scores.values()) >= 0.95, scores


def test_latents_are_quiet_and_decode_to_the_state(cell):
    episodes, bundle, again = cell
    z, other = bundle.encode(episodes[50:]).z, bundle.encode(again).z
    assert (z - other).std() < 0.1 * np.diff(z, axis=1).std()  # noise moves latents far less than a step does
    state = np.stack([e.state for e in episodes[50:]])
    error = np.square(bundle.decode(z) - state).mean((0, 1)) / state.var((0, 1))
    assert error.max() < 0.05
