"""A small world with known dynamics: a damped rotation driven by actions, a held constant, a flag that flips."""

import numpy as np
import pytest
import torch

from phaseb.config.dynamics import GRUConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import WorkerContext


def make_world(num_episodes=24, steps=20, seed=0, lengths=None, split="train"):
    rng = np.random.default_rng(seed)
    z = np.zeros((num_episodes, steps + 1, 4), dtype=np.float32)
    actions = rng.uniform(-1, 1, (num_episodes, steps, 2)).astype(np.float32)
    z[:, 0, :2] = rng.normal(size=(num_episodes, 2))
    z[:, :, 2] = rng.normal(size=num_episodes)[:, None]
    z[:, 0, 3] = -1.0
    turn = np.array([[0.95, -0.25], [0.25, 0.95]])
    for t in range(steps):
        z[:, t + 1, :2] = z[:, t, :2] @ turn.T + 0.3 * actions[:, t, :1] * np.array([0, 1])
        z[:, t + 1, 3] = np.where(actions[:, t, 1] > 0.5, 1.0, np.where(actions[:, t, 1] < -0.5, -1.0, z[:, t, 3]))
    lengths = np.full(num_episodes, steps) if lengths is None else np.asarray(lengths)
    return Trajectories(
        z=z,
        actions=actions,
        rewards=z[:, 1:, 0] * 2 + 5,
        terminals=np.zeros((num_episodes, steps), np.float32),
        lengths=lengths.astype(np.int64),
        ids=tuple(f"e{i}" for i in range(num_episodes)),
        splits=(split,) * num_episodes,
    )


class StatelessPlugin:
    """What every plug-in has beside its step; this one learns nothing."""

    def __init__(self, settings, latent_size, action_size):
        pass

    def fit(self, train, seed):
        pass

    def state_dict(self):
        return {"nothing": torch.zeros(1)}

    def load_state_dict(self, state):
        pass


@pytest.fixture
def world():
    return make_world()


@pytest.fixture
def config():
    return GRUConfig.model_validate(
        {
            "num_members": 2,
            "hidden_size": 32,
            "head_size": 32,
            "num_steps": 250,
            "batch_size": 64,
            "one_step_window": 6,
            "horizon": {"steps": 20, "start": 4},
            "learning_rate": 5e-3,
            "gp_correction": {"enabled": False},
        }
    )


@pytest.fixture
def context():
    return WorkerContext(seed=3)
