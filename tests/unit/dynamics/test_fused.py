"""The fused free run against the one that autograd records: the same predictions and the same gradients."""

import pytest
import torch

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.gru_ensemble.fused_rollout import fused_free_run
from phaseb.dynamics.gru_ensemble.learner import make_learner
from phaseb.dynamics.gru_ensemble.unroll import open_loop_autograd
from phaseb.nn.data_parallel import WorkerContext

PARTS = ("y", "inputs", "features", "extras", "candidates")


def learner_of(config, world, changes):
    config = GRUConfig.model_validate(config.model_dump() | changes)
    learner = make_learner(config, world, WorkerContext(seed=1))
    noise = torch.Generator().manual_seed(1)
    for parameter in learner.model.parameters():  # no gain of one and no shift of zero that would hide a mistake
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    return learner


def run_and_gradients(run, learner, forced, with_target, every):
    windows = learner.sampler.draw("rollout", 0, 8, 12)
    target = windows.z[:, :, 1:] if with_target else None
    learner.model.zero_grad()
    out = run(learner.model, windows.z[:, :, :-1], windows.actions, target, forced, every)
    parts = [getattr(out, name) for name in PARTS]
    noise = torch.Generator().manual_seed(2)
    torch.stack([(part * torch.randn(part.shape, generator=noise)).sum() for part in parts]).sum().backward()
    gradients = {n: p.grad for n, p in learner.model.named_parameters() if not n.startswith("outcome")}
    return parts, gradients


@pytest.mark.parametrize(
    ("changes", "forcing", "with_target", "every"),
    [
        ({}, False, True, 0),
        ({}, True, True, 0),
        ({}, True, False, 5),
        ({"num_modes": 1}, True, True, 0),
        ({"num_modes": 3, "noise": "heteroscedastic", "find_events": False}, True, True, 0),
        ({"num_blocks": 0}, True, True, 0),
        ({"layer_norm": False}, True, True, 4),
        ({"clamp_quantile": 0.5}, False, True, 0),
        ({"bound_latents": False}, False, True, 0),
    ],
)
def test_the_fused_run_is_the_recorded_one(config, world, changes, forcing, with_target, every):
    learner = learner_of(config, world, changes)
    forced = torch.rand(2, 8, 12, generator=torch.Generator().manual_seed(3)) < 0.3 if forcing else None
    (parts, gradients), (fused_parts, fused_gradients) = (
        run_and_gradients(run, learner, forced, with_target, every) for run in (open_loop_autograd, fused_free_run)
    )
    for name, part, fused in zip(PARTS, parts, fused_parts, strict=True):
        assert torch.allclose(part, fused, atol=2e-5), name
    assert len(gradients) > 5
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0, name
        assert torch.allclose(gradient, fused_gradients[name], atol=2e-5 * gradient.abs().max().item()), name


def test_rollouts_do_not_depend_on_how_many_rows_go_at_once(config, world, monkeypatch):
    bundle = learner_of(config, world, {"noise": "heteroscedastic"}).bundle()
    z0, actions = torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions)
    whole = bundle.rollout(z0, actions, 20, torch.Generator().manual_seed(0))
    monkeypatch.setattr("phaseb.dynamics.gru_ensemble.rollout.TILE_ROWS", 7)
    tiled = bundle.rollout(z0, actions, 20, torch.Generator().manual_seed(0))
    for name in ("z", "rewards", "terminals", "uncertainty"):
        assert torch.allclose(getattr(whole, name), getattr(tiled, name), atol=1e-5), name


@pytest.mark.parametrize("noise", ["none", "heteroscedastic", "bootstrap"])
def test_split_rollouts_are_those_of_their_own_members(config, world, noise):
    bundle = learner_of(config, world, {"noise": noise}).bundle()
    z0, actions = torch.from_numpy(world.z[:23, 0]), torch.from_numpy(world.actions[:23])
    whole, split = (
        bundle.rollout(z0, actions, 20, torch.Generator().manual_seed(0), split=split) for split in (False, True)
    )
    for name in ("z", "actions", "rewards", "terminals", "member"):
        assert torch.allclose(getattr(whole, name), getattr(split, name), atol=1e-5), name
    assert whole.uncertainty.min() > 0
    assert split.uncertainty.abs().max() == 0
