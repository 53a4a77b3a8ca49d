"""A walk makes, step by step, what the generator's rollout makes at once."""

import numpy as np
import pytest
import torch

from phaseb.config.dynamics import GPConfig, PluginConfig
from phaseb.dynamics.custom import CustomDynamics, Step
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.dynamics.gru_ensemble.learner import make_learner
from phaseb.dynamics.walk import start_walk
from tests.unit.dynamics.conftest import StatelessPlugin

SEED, STEPS = 5, 6


class Counting(StatelessPlugin):
    """z' = z + the first action; the reward is the number of the step."""

    def step(self, z, action, memory, generator):
        asked = (memory or 0) + 1
        count = torch.full((len(z),), float(asked))
        return Step(z + action[:, :1], count, (count > 4).float(), count, asked)


def walked(model, starts, actions):
    walk = start_walk(model, starts, torch.Generator().manual_seed(SEED))
    return [walk.step(actions[:, t]) for t in range(STEPS)]


def assert_same(model, world, tolerance):
    starts, actions = torch.from_numpy(world.z[:5, 0]), torch.from_numpy(world.actions[:5, :STEPS])
    steps = walked(model, starts, actions)
    made = model.rollout(starts, lambda z, t: actions[:, t], STEPS, torch.Generator().manual_seed(SEED))
    for name, column in (
        ("z", made.z[:, 1:]),
        ("reward", made.rewards),
        ("terminal", made.terminals),
        ("uncertainty", made.uncertainty),
    ):
        own = np.stack([getattr(step, name).numpy() for step in steps], 1)
        np.testing.assert_allclose(own, column.numpy(), rtol=tolerance, atol=tolerance, err_msg=name)


def test_of_the_ensemble(world, config, context):
    learner = make_learner(config, world, context, None)
    for step in range(3):
        learner.step(step)
    assert_same(learner.bundle(), world, 1e-5)


def test_of_the_processes(world):
    config = GPConfig(max_transitions=60, num_hyperparameter_points=40, steps=5, num_directions=0)
    assert_same(GPDynamics.fit(config, world, 0), world, 1e-5)


def test_of_a_plugin_with_memory(world):
    model = CustomDynamics.make("own", PluginConfig(model=f"{__name__}:Counting"), 4, 2)
    assert_same(model, world, 0)


def test_what_is_no_generator_is_refused():
    with pytest.raises(TypeError, match="str is no generator"):
        start_walk("gp", torch.zeros(1, 2), torch.Generator())
