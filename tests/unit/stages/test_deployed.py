"""The network that leaves phaseb acts as encoder and actor do inside, whatever the policy sees."""

from unittest import mock

import numpy as np
import pytest
import torch

from phaseb.config.data import EnvironmentConfig
from phaseb.config.encoder import LatentsConfig
from phaseb.episodes.actions import ActionScale
from phaseb.export.loader import ExportedAgent, ExportedPolicy, InferenceSession
from phaseb.export.module import DeployedPolicy, FrameStack
from phaseb.export.onnx import FILES, _written
from phaseb.latents.fit import fit_encoder_model
from phaseb.latents.learner import make_learner
from phaseb.latents.padding import episode_arrays
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.actor import Actor
from phaseb.policy.chunk_networks import NETWORKS, ChunkSizes
from phaseb.policy.chunk_policy import ChunkPolicy
from phaseb.policy.networks import make_mlp
from phaseb.workcell.collect import collect_episodes

CONFIG = LatentsConfig(
    num_dims=6, hidden=16, num_steps=1, num_groups=1, num_segments=2, segment_steps=10, decoder_steps=1
)
SCALE = ActionScale(np.array([-3.0, -1.0], np.float32), np.array([5.0, 1.0], np.float32))
LEVELS = torch.tensor([[0.0, 0.0], [-1.0, 1.0]])


@pytest.fixture(scope="module")
def episodes():
    return collect_episodes(EnvironmentConfig(max_steps=20), 0, range(3))


def first_directions(rows, seed):
    """As if the first two learned directions mattered: three episodes show nothing."""
    return torch.eye(rows.learned.shape[1], dtype=rows.learned.dtype)[:, :2]


def made(episodes, observation, levels=None):
    learner = make_learner(CONFIG, episode_arrays(episodes, SCALE, observation), WorkerContext(0))
    with mock.patch("phaseb.latents.projection.relevant_directions", first_directions):
        bundle = fit_encoder_model(CONFIG, learner.encoder, episodes, SCALE)
    stack = make_mlp([bundle.num_dims, 8, 4], [0], "actor", 1, norm=False)
    actor = Actor([w * 10 for w in stack.weights], list(stack.biases), False, levels)
    return bundle, actor, DeployedPolicy(bundle, actor, SCALE).eval()


def observation_at(episodes, t):
    return {"state": np.stack([e.state[t] for e in episodes]), "frames": np.stack([e.frames[t] for e in episodes])}


@pytest.mark.parametrize("observation", ["state", "frames", "both"])
def test_it_acts_as_the_encoder_and_the_actor_do(episodes, observation):
    bundle, actor, policy = made(episodes, observation)
    assert set(policy.inputs) == ({"state", "frames"} if observation == "both" else {observation})
    online, memory = bundle.online(len(episodes)), FrameStack(policy.inputs, bundle.spec.stack)
    for t in range(6):
        seen = observation_at(episodes, t)
        z = online.reset(seen) if t == 0 else online.step(seen)
        given = memory.add(seen)
        acted = policy(*(torch.from_numpy(given[name]) for name in policy.inputs)).detach().numpy()
        np.testing.assert_allclose(acted, SCALE.denormalise(actor.act(z)), atol=2e-5)
    assert np.ptp(acted, axis=0).max() > 1e-3  # or the comparison would say nothing


@pytest.mark.parametrize("kind", ["act", "flow"])
@pytest.mark.parametrize("file", ["onnx", "torch.export"])
def test_both_files_of_a_policy_of_chunks_act_in_closed_loop_as_it_does(episodes, kind, file):
    """The plans are the same, and so is what their ensemble or queue does with them, for any number of episodes."""
    bundle, _, _ = made(episodes, "state")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        actor = ChunkPolicy(NETWORKS[kind](ChunkSizes(bundle.num_dims, 2, 4, 16)), LEVELS)
    policy = DeployedPolicy(bundle, actor, SCALE).eval()
    assert (policy.output, policy.inputs) == ("plan", ("state", "noise") if kind == "flow" else ("state",))
    noise = [torch.randn(5, 4, 2)] if kind == "flow" else []
    blobs = _written(policy, (torch.from_numpy(episodes[0].state[:5].astype(np.float32)), *noise))
    shapes = {"state": ["batch", 8]} | ({"noise": ["batch", 4, 2]} if noise else {})
    card = {"interface": {"inputs": shapes, "outputs": {"plan": ["batch", 4, 2]}, "plans": kind, "binary_actions": [1]}}
    session = InferenceSession.of(FILES[file], blobs[FILES[file]], list(shapes))
    agent, online, act = ExportedAgent(ExportedPolicy(card, file, session)), bundle.online(3), actor.closed_loop()
    for t in (*range(7), 0, 1):
        seen = {"state": np.stack([e.state[t] for e in episodes])}
        z, acted = (x.reset(seen) if t == 0 else x.step(seen) for x in (online, agent))
        np.testing.assert_allclose(acted, SCALE.denormalise(act(z, t)), atol=5e-5)


def test_new_episodes_remember_no_frames_of_the_last_ones(episodes):
    bundle, _, policy = made(episodes, "frames")
    memory = FrameStack(policy.inputs, bundle.spec.stack)
    first = memory.add(observation_at(episodes, 0))["frames"]
    memory.add(observation_at(episodes, 9))
    memory.reset()
    np.testing.assert_array_equal(memory.add(observation_at(episodes, 0))["frames"], first)
    assert (first == first[:, :1]).all()


def test_a_switch_near_its_threshold_is_undecided(episodes):
    _, actor, policy = made(episodes, "state", LEVELS)
    state = torch.from_numpy(episodes[0].state)
    assert not policy.near_decision_boundary(state).any()
    assert set(policy(state)[:, 1].tolist()) <= {-1.0, 1.0}
    with torch.no_grad():  # move the threshold to where one row lies
        actor.policy.stack.biases[-1][0, 0, 1] -= actor.policy(policy.latents(state)[None])[0][0, 4, 1]
    assert policy.near_decision_boundary(state)[4]
