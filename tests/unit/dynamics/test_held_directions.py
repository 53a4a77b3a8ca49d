"""What is constant within an episode, such as its task, stays what it was at the start, however long a rollout is."""

from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from scipy.linalg import null_space
from scipy.stats import ortho_group

from phaseb.config.dynamics import GPConfig, GRUConfig, PluginConfig
from phaseb.dynamics.custom import Step, fit_custom
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.dynamics.gru_ensemble.learner import make_learner
from phaseb.dynamics.protocol import load_generator
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.storage import Store
from tests.unit.dynamics.conftest import StatelessPlugin, make_world

TASKS, HORIZON = 3, 150


@pytest.fixture(scope="module")
def turned():
    """Latents (N, T+1, 4) in which a rotation and one of three tasks are spread over all dimensions, and the way back
    to the tasks (4, 3), less a third."""
    world = make_world(30, 20)
    task = np.arange(30) % TASKS
    one_hot = np.tile(np.eye(TASKS)[task][:, None], (1, 21, 1))
    centred = null_space(np.ones((1, TASKS)))  # the columns add up to 1, so two numbers say all three
    rows = np.concatenate([world.z[..., :2], one_hot @ centred], axis=-1)
    turn = ortho_group.rvs(4, random_state=0)
    lineage = {"tag/tasks": ('["a", "b", "c"]',) * 30}
    return replace(world, z=(rows @ turn).astype(np.float32), lineage=lineage), one_hot, turn.T[:, 2:] @ centred.T


class Restless(StatelessPlugin):
    """A plug-in that moves every latent at random."""

    def step(self, z, action, memory, generator):
        zeros = torch.zeros(len(z))
        return Step(z + 0.1 * torch.randn(z.shape, generator=generator), zeros, zeros, zeros)


def fitted(name, world):
    if name == "plugin":
        made = fit_custom("restless", PluginConfig(model=f"{__name__}:Restless"), world, 0)
        with TemporaryDirectory() as folder:
            made.save(Store.at(folder))
            return load_generator(Store.at(folder))
    if name == "gp":
        return GPDynamics.fit(GPConfig(max_transitions=200, num_hyperparameter_points=80, steps=10), world, 0)
    config = GRUConfig.model_validate(
        {
            "num_members": 2,
            "hidden_size": 8,
            "head_size": 8,
            "num_steps": 10,
            "batch_size": 16,
            "one_step_window": 5,
            "horizon": {"steps": 12, "start": 4},
            "gp_correction": {"enabled": False},
        }
    )
    learner = make_learner(config, world, WorkerContext(seed=0))
    for step in range(config.num_steps):
        learner.step(step)
    return learner.bundle()


@pytest.mark.parametrize("name", ["gp", "gru", "plugin"])
def test_a_task_that_is_spread_over_all_latents_does_not_drift(turned, name):
    world, one_hot, to_tasks = turned
    actions = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (30, HORIZON, 2)).astype(np.float32))
    rollout = fitted(name, world).rollout(torch.from_numpy(world.z[:, 0]), actions, HORIZON, torch.Generator())
    z = rollout.z.numpy()
    np.testing.assert_allclose(
        z @ to_tasks + 1 / TASKS, np.broadcast_to(one_hot[:, :1], (30, HORIZON + 1, TASKS)), atol=1e-5
    )
    assert np.ptp(z, axis=1).min() > 1e-3, "all latents move, for the rotation is in each of them"
