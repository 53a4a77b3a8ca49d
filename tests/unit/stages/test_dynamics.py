"""The scale of each generator's uncertainty, and what the gate makes of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from phaseb.config.dynamics import PluginConfig
from phaseb.config.root import Config
from phaseb.dynamics.custom import CustomDynamics, Step
from phaseb.dynamics.gru_ensemble.learner import make_learner
from phaseb.episodes.trajectories import Trajectories
from phaseb.episodes.windows import windows
from phaseb.nn.data_parallel import WorkerContext
from phaseb.stages.dynamics import uncertainty_scale
from phaseb.trust.gate import uncertainty_discount
from phaseb.trust.model import UNCERTAINTY_QUANTILE

F = np.float32


class Unsure:
    """z' = z; uncertainty is the size of the action times a factor, or nothing."""

    def __init__(self, factor):
        self.factor = factor

    def step(self, z, action, memory, generator):
        nothing = torch.zeros(len(z))
        return Step(z, nothing, nothing, self.factor * action.norm(dim=1))


def episodes(count=12, steps=20, seed=0):
    g = np.random.default_rng(seed)
    return Trajectories(
        z=g.standard_normal((count, steps + 1, 3)).astype(F),
        actions=g.uniform(-1, 1, (count, steps, 2)).astype(F),
        rewards=g.standard_normal((count, steps)).astype(F),
        terminals=np.zeros((count, steps), F),
        lengths=np.full(count, steps),
        ids=tuple(f"e{i}" for i in range(count)),
        splits=("train",) * count,
    )


def plugin(factor):
    return CustomDynamics("unsure", PluginConfig(model="a:Unsure"), Unsure(factor), 3, 2)


def config(**changes):
    plugins = {"unsure": {"model": "a:Unsure"}}
    arms = {"names": ["real_only", "fixed_weight"], "fixed_weight": {"generator": "unsure"}}
    tree = {"dynamics": {"plugins": plugins}, "synthesis": {"horizon": 10}, "arms": arms}
    return Config.model_validate(tree | changes)


@pytest.mark.parametrize("use", ["stored", "branched"])
def test_the_scale_is_in_the_generator_s_own_unit(use):
    settings = (
        config()
        if use == "stored"
        else config(
            arms={"names": ["real_only", "trust_weighted"], "trust_weighted": {"generator": "unsure"}},
            policy={"augmentation": {"horizon": 4}},
        )
    )
    scales = [uncertainty_scale(plugin(x), episodes(), episodes(seed=1), settings) for x in (1.0, 40.0)]
    assert scales[1] == pytest.approx(40 * scales[0], rel=1e-5)
    actions = np.linalg.norm(episodes(seed=1).actions, axis=-1)
    if use == "stored":
        seen = windows(episodes(seed=1), 10, settings.run.seed).actions
        assert scales[0] == pytest.approx(np.quantile(np.linalg.norm(seen, axis=-1), UNCERTAINTY_QUANTILE), rel=1e-5)
    else:  # windows of 4 steps from every state: actions inside an episode are in four of them
        assert scales[0] == pytest.approx(np.quantile(actions, UNCERTAINTY_QUANTILE), rel=0.05)
    mask = np.ones(actions.shape, bool)
    one, other = (uncertainty_discount(x * actions, mask, s) for x, s in zip((1.0, 40.0), scales, strict=True))
    np.testing.assert_allclose(one, other, rtol=1e-4)


def test_one_member_is_discounted_as_little_as_two_are_at_their_scale():
    """One member never disagrees with itself: its scale is 0, and that must not be a weight of 0."""
    tree = {
        "num_steps": 3,
        "hidden_size": 8,
        "head_size": 8,
        "horizon": {"steps": 10, "start": 5},
        "one_step_window": 5,
        "gp_correction": {"enabled": False},
    }
    left = []
    for members in (1, 2):
        settings = Config.model_validate(
            {"dynamics": {"gru": tree | {"num_members": members}}, "synthesis": {"horizon": 10}}
        )
        model = make_learner(settings.dynamics.gru, episodes(), WorkerContext(0)).bundle()
        model.uncertainty_scale = uncertainty_scale(model, episodes(), episodes(seed=1), settings)
        assert (model.uncertainty_scale > 0) == (members == 2)
        z0, actions = torch.from_numpy(episodes(seed=2).z[:, 0]), torch.from_numpy(episodes(seed=2).actions[:, :10])
        made = model.rollout(z0, actions, 10, torch.Generator().manual_seed(0))
        left.append(uncertainty_discount(made.uncertainty.numpy(), np.ones((12, 10), bool), model.uncertainty_scale))
    assert (left[0] == 1).all()
    assert left[1].mean() > 0.5


def test_without_dev_episodes_training_episodes_give_the_scale():
    train, none = episodes(), episodes().select(np.zeros(12, bool))
    assert uncertainty_scale(plugin(1.0), train, none, config()) > 0


def test_what_nothing_is_known_of_is_beyond_any_scale():
    class Lost(Unsure):
        def step(self, z, action, memory, generator):
            found = super().step(z, action, memory, generator)
            return found._replace(uncertainty=torch.where(action[:, 0] > 0, torch.inf, found.uncertainty))

    model = replace(plugin(1.0), model=Lost(1.0))
    # A plug-in must be finite; the Gaussian processes need not be.
    model.checked_step = lambda z, action, memory, generator, t: model.model.step(z, action, memory, generator)
    scale = uncertainty_scale(model, episodes(), episodes(seed=1), config())
    assert 0 < scale <= np.sqrt(2)
