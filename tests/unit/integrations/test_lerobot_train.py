"""The loss that the loop gets; the loop itself runs in tests/fixtures/check_lerobot_training.py."""

import sys
from functools import partial
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from episode_strategies import make_episode
from torch import nn

from phaseb.episodes.formats.export import Exported
from phaseb.episodes.formats.lerobot_export import write_lerobot
from phaseb.errors import ConfigError
from phaseb.integrations.lerobot_train import main, make_weighter
from phaseb.runtime.storage import Store

STEPS = 3
TRUST, OTHER = SimpleNamespace(type="trust"), SimpleNamespace(type="uniform")
CPU = torch.device("cpu")


class Policy(nn.Module):
    """With the parts of LeRobot's ACTPolicy that are used."""

    def __init__(self, kind: str = "act") -> None:
        super().__init__()
        self.config = SimpleNamespace(
            type=kind, action_delta_indices=list(range(STEPS)), image_features={}, use_vae=True, kl_weight=10.0
        )
        self.model = SmallModel()

    def forward(self, batch):
        actions, (mean, log_variance) = self.model(batch)
        inside = ~batch["action_is_pad"][..., None]
        error = ((batch["action"] - actions).abs() * inside).sum() / (inside.sum() * actions.shape[-1])
        divergence = (-0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp())).sum(-1).mean()
        return error + 10 * divergence, {}


class SmallModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.actions, self.style = nn.Linear(4, STEPS * 2), nn.Linear(4, 4)

    def forward(self, batch):
        mean, log_variance = self.style(batch["observation.state"]).chunk(2, -1)
        return self.actions(batch["observation.state"]).reshape(-1, STEPS, 2), (mean, log_variance)


@pytest.fixture
def folder(tmp_path):
    weight = np.array([0.5, 0.5, 0.0, 0.0, 1.0], np.float32)
    made = make_episode("made", 5, seed=1)
    write_lerobot(Store.at(tmp_path), [Exported(make_episode("real", 4, seed=0)), Exported(made, weight=weight)], 10)
    return str(tmp_path)


def batch_of(index: list[int], padding: list[list[int]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    rows = len(index)
    return {
        "index": torch.tensor(index),
        "action_is_pad": torch.tensor(padding).bool(),
        "observation.state": torch.randn(rows, 4, generator=generator),
        "action": torch.randn(rows, STEPS, 2, generator=generator),
    }


def loop_loss(policy, weighter, batch):
    """As LeRobot's `update_policy` takes it."""
    weights, _ = weighter.compute_batch_weights(batch)
    losses, _ = policy.forward(batch, reduction="none")
    return (losses * weights).sum() / (weights.sum() + 1e-6)


def test_frames_of_weight_one_give_the_policys_own_loss(folder):
    policy = Policy()
    weighter = make_weighter(None, TRUST, policy, CPU, folder)
    batch = batch_of([0, 1, 3, 8], [[0, 0, 0], [0, 0, 0], [0, 1, 1], [0, 1, 1]])
    own, _ = policy.forward(batch)
    assert loop_loss(policy, weighter, batch).item() == pytest.approx(own.item(), rel=1e-5)


def test_frames_without_weight_leave_no_trace_in_the_gradient(folder):
    gradients = []
    for shift in (0.0, 7.0):
        policy = Policy()
        weighter = make_weighter(None, TRUST, policy, CPU, folder)
        batch = batch_of([0, 5, 6, 7], [[0, 0, 0]] * 4)
        batch["action"][1, 1:] += shift  # behind the cut, in the chunk of a frame with weight
        batch["action"][2:] += shift
        batch["observation.state"][2:] += shift
        loop_loss(policy, weighter, batch).backward()
        gradients.append(torch.cat([p.grad.reshape(-1) for p in policy.parameters()]))
    assert torch.equal(*gradients)
    assert gradients[0].abs().max() > 0


def test_other_types_are_left_to_lerobot(folder):
    made = make_weighter(lambda *args, **kwargs: (args, kwargs), OTHER, "policy", CPU, folder, "me/mine")
    assert made == ((OTHER, "policy", CPU), {"dataset_root": folder, "dataset_repo_id": "me/mine"})


def test_what_cannot_be_weighed_is_refused(folder):
    with pytest.raises(ConfigError, match="diffusion takes no weights"):
        make_weighter(None, TRUST, Policy("diffusion"), CPU, folder)
    with pytest.raises(ConfigError, match=r"--dataset\.root"):
        make_weighter(None, TRUST, Policy(), CPU)
    weighs = Policy("smolvla")
    weighs.forward = partial(lambda batch, reduction: None)
    before = weighs.forward
    assert make_weighter(None, TRUST, weighs, CPU, folder).weights.sum() == 6
    assert weighs.forward is before


def test_without_lerobot_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lerobot", None)
    monkeypatch.setattr("phaseb.integrations.lerobot_train.version", absent)
    with pytest.raises(ConfigError, match=r"LeRobot is not installed .*lerobot\[training\]==0\.6\.1"):
        main(["--policy.type=act"])


def absent(name):
    raise PackageNotFoundError(name)


def installed(monkeypatch, weighting, ran=None):
    """A stand-in for LeRobot whose loop keeps the words that it was given."""
    loop = SimpleNamespace(main=lambda: ran.extend(sys.argv[1:]))
    utils = SimpleNamespace() if weighting is None else SimpleNamespace(sample_weighting=weighting)
    modules = {"lerobot": SimpleNamespace(), "lerobot.scripts": SimpleNamespace(lerobot_train=loop)}
    for name, module in (modules | {"lerobot.utils": utils}).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("phaseb.integrations.lerobot_train.version", lambda name: "0.4.2")


@pytest.mark.parametrize("weighting", [None, SimpleNamespace(), SimpleNamespace(make_sample_weighter=None)])
def test_a_lerobot_without_weights_is_named_with_its_version(monkeypatch, weighting):
    installed(monkeypatch, weighting)
    with pytest.raises(ConfigError, match=r"LeRobot 0\.4\.2 has no training loop that takes weights.*==0\.6\.1"):
        main(["--policy.type=act"])


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ([], ["--sample_weighting.type=trust"]),
        (["--sample_weighting.epsilon=1e-8"], ["--sample_weighting.type=trust"]),
        (["--sample_weighting.type=uniform"], []),
        (["--sample_weighting.type", "uniform"], []),
        (["--sample_weighting=null"], []),
    ],
)
def test_the_gates_weights_are_taken_unless_another_kind_is_named(monkeypatch, words, kind):
    ran = []
    weighting = SimpleNamespace(make_sample_weighter=None, SampleWeighter=SimpleNamespace(register=lambda kind: None))
    installed(monkeypatch, weighting, ran)
    main(words)
    assert ran == [*words, *kind]
