"""A world model of one's own: rolled out step by step, kept as tensors, refused where it is none."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from phaseb.config.dynamics import DynamicsConfig, PluginConfig
from phaseb.dynamics.custom import CustomDynamics, Step
from phaseb.dynamics.custom import fit_custom as fit_named
from phaseb.dynamics.protocol import load_generator
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.storage import Store


class Drift:
    """z' = z + speed + the first action; it remembers how often it was asked."""

    def __init__(self, settings, latent_size, action_size):
        self.settings, self.speed = settings, torch.zeros(latent_size)

    def fit(self, train, seed):
        self.speed = torch.from_numpy(np.diff(train.z, axis=1)[train.mask].mean(0))

    def step(self, z, action, memory, generator):
        asked = (memory or 0) + 1
        count = torch.full((len(z),), float(asked))
        return Step(z + self.speed + action[:, :1], count, (count > 4).float(), uncertainty=count, memory=asked)

    def state_dict(self):
        return {"speed": self.speed}

    def load_state_dict(self, state):
        self.speed = state["speed"]


class Crooked(Drift):
    def step(self, z, action, memory, generator):
        return super().step(z, action, memory, generator)._replace(reward=torch.zeros(len(z), 1))


class Lost(Drift):
    def step(self, z, action, memory, generator):
        return super().step(z, action, memory, generator)._replace(z=z / 0 * 0)


def config(name):
    return PluginConfig(model=f"{__name__}:{name}", settings={"rate": 0.5})


def fit_custom(settings, data, seed):
    return fit_named("drift", settings, data, seed)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Tests are imported under a name of their own; here it is the module that the setting names."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules[Drift.__module__])


def test_it_rolls_out_as_its_steps_say(world):
    model = fit_custom(config("Drift"), world, 0)
    z0, actions = torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions)
    made = model.rollout(z0, actions, 20, torch.Generator())
    speed = np.diff(world.z, axis=1).reshape(-1, 4).mean(0)
    steps = np.arange(1, 21)[None, :, None] * speed + np.cumsum(world.actions[:, :, :1], 1)
    np.testing.assert_allclose(made.z[:, 1:].numpy(), world.z[:, :1] + steps, atol=1e-4)
    assert made.rewards[0].tolist() == list(range(1, 21))
    assert made.lengths.tolist() == [5] * len(world)  # it says that the fifth step ends the task
    followed = model.rollout(z0, lambda z, t: actions[:, t], 20, torch.Generator())
    assert torch.equal(followed.z, made.z)
    one = model.teacher_forced(torch.from_numpy(world.z), actions).numpy()
    np.testing.assert_allclose(one, world.z[:, :-1] + speed + world.actions[:, :, :1], atol=1e-5)


def test_it_is_kept_as_tensors(world, tmp_path):
    made = fit_custom(config("Drift"), world, 0)
    made.save(Store.at(tmp_path))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    again = load_generator(Store.at(tmp_path))
    assert isinstance(again, CustomDynamics)
    assert (again.name, again.model.settings) == ("drift", {"rate": 0.5})
    z0, actions = torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions)
    assert torch.equal(again.mean_rollout(z0, actions), made.mean_rollout(z0, actions))


@pytest.mark.parametrize(
    ("name", "message"),
    [("Crooked", r"reward of step 0 is \(24, 1\), wanted \(24,\)"), ("Lost", "Lost: z of step 0 has NaN or Inf")],
)
def test_a_step_that_is_wrong_is_named(world, name, message):
    model = fit_custom(config(name), world, 0)
    with pytest.raises(DataError, match=message):
        model.mean_rollout(torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Model", "there is no module nowhere"),
        ("math:sqrt", "math:sqrt is no class with fit, step"),
        ("pathlib:Path", "Path is no class with fit"),
    ],
)
def test_what_is_no_world_model_is_refused(world, name, message):
    with pytest.raises(ConfigError, match=message):
        fit_custom(PluginConfig(model=name), world, 0)


def test_a_name_that_is_none_is_refused():
    with pytest.raises(ValidationError, match="is not of the form module:Class"):
        PluginConfig(model="lstm")
    with pytest.raises(ValidationError, match="'gp' is no name for a plug-in"):
        DynamicsConfig(plugins={"gp": {"model": "a:B"}})
