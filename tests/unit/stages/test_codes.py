"""Where actions are latent, new episodes are driven by the codes of others, and say so."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from phaseb.config.dynamics import PluginConfig, SynthesisConfig
from phaseb.config.encoder import LatentActionsConfig
from phaseb.config.trust import JudgeConfig
from phaseb.dynamics.custom import CustomDynamics, Step
from phaseb.episodes.trajectories import Trajectories
from phaseb.latents.latent_actions import fit_latent_actions
from phaseb.latents.model import EncoderModel
from phaseb.runtime.seeding import torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.judge import model_rungs, open_loop_numbers
from phaseb.stages.latent_actions import latent_action_policy
from phaseb.stages.synthesize import make_plan, roll_out


class Adds:
    """z' = z + a, and nothing learned."""

    def step(self, z, action, memory, generator):
        zeros = torch.zeros(len(z))
        return Step(z + action, zeros, zeros, zeros)


MODEL = CustomDynamics("adds", PluginConfig(model="a:Adds"), Adds(), 2, 2)


@pytest.fixture
def real():
    """12 episodes of 6 steps in two dimensions, with actions that give their future away."""
    z = torch.randn(12, 7, 2, generator=torch_generator(0)).numpy()
    zeros = np.zeros((12, 6), np.float32)
    return Trajectories(
        z=z,
        actions=np.diff(z, axis=1),
        rewards=zeros,
        terminals=zeros,
        lengths=np.full(12, 6),
        ids=tuple(f"e{i}" for i in range(12)),
        splits=("train",) * 12,
    )


def constant(z, step):
    return torch.full((len(z), 2), 0.25)


def test_rollouts_follow_codes_and_their_lineage_says_so(real):
    plan = make_plan(real, SynthesisConfig(num_episodes=24, horizon=6), seed=0)
    made = roll_out(MODEL, plan, "digest", torch_generator(0), constant)
    walked = plan.z[:, :1] + 0.25 * np.arange(7, dtype=np.float32)[None, :, None]
    np.testing.assert_allclose(made.z, walked, atol=1e-5)
    np.testing.assert_array_equal(made.actions, np.full((24, 6, 2), 0.25, np.float32))
    assert set(made.lineage["action_source"]) == {"followed"}
    assert made.lineage["start_episode"] == plan.lineage["start_episode"]


def test_judged_segments_are_driven_by_codes_and_shown_without_actions(real):
    config = JudgeConfig(rungs=("3",))
    pairs = model_rungs(MODEL, real, config, 6, 0, constant)["3"]
    assert not np.asarray(pairs.actions).any()
    np.testing.assert_allclose(np.diff(pairs.synthetic, axis=1), 0.25, atol=1e-5)
    told = model_rungs(MODEL, real, config, 6, 0)["3"]  # recorded actions, which give the future away here
    np.testing.assert_allclose(told.synthetic, told.real, atol=1e-5)
    assert np.asarray(told.actions).any()


def test_numbers_of_rollouts_are_of_those_under_codes(real):
    assert open_loop_numbers(MODEL, real, real, 6, 0)["numbers"]["std_ratio"] == pytest.approx(1, abs=1e-4)
    steady = open_loop_numbers(MODEL, real, real, 6, 0, constant)["numbers"]["std_ratio"]
    expected = np.std(0.25 * np.arange(1, 7)) / real.z[:, 1:].std(axis=1).mean()
    assert steady == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("known", ["none", "some"])
def test_codes_are_followed_only_where_no_episode_has_actions(real, known, monkeypatch, tmp_path):
    z = list(torch.from_numpy(real.z))
    actions = [None] * 11 + [torch.from_numpy(real.actions[11]) if known == "some" else None]
    latent = fit_latent_actions(LatentActionsConfig(num_steps=5), z, actions, seed=0)
    monkeypatch.setattr(EncoderModel, "load", lambda store, device: SimpleNamespace(latent_actions=latent))
    found = latent_action_policy(Store.at(str(tmp_path)), torch_generator(0))
    assert (found is None) == (known == "some")
    if found is not None:
        assert torch.isin(found(z[0][:3], 0), latent.bank.codes).all()
    monkeypatch.setattr(EncoderModel, "load", lambda store, device: SimpleNamespace(latent_actions=None))
    assert latent_action_policy(Store.at(str(tmp_path)), torch_generator(0)) is None
