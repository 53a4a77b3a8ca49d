"""Rollouts: free running, teacher forcing, member kept, policies, noise, clamp, uncertainty."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.branches import branch_numbers, draw
from phaseb.dynamics.evidence import recorded_branches
from phaseb.dynamics.gru_ensemble.action_lookahead import append_future_actions, future_known, pad_future_actions
from phaseb.dynamics.gru_ensemble.learner import make_learner
from phaseb.dynamics.gru_ensemble.network import gather_mode
from phaseb.dynamics.gru_ensemble.objective import RECON_WEIGHTS
from phaseb.dynamics.gru_ensemble.rollout import Noise, RolloutEngine
from phaseb.dynamics.gru_ensemble.unroll import open_loop
from phaseb.nn.data_parallel import WorkerContext
from tests.unit.dynamics.conftest import make_world


def bundle_of(config, world, steps=20, **changes):
    config = GRUConfig.model_validate(config.model_dump() | {"num_steps": steps} | changes)
    learner = make_learner(config, world, WorkerContext(seed=1))
    for s in range(steps):
        learner.step(s)
    return learner.bundle()


def generator():
    return torch.Generator().manual_seed(0)


def test_a_rollout_keeps_one_member(config, world):
    bundle = bundle_of(config, world, num_modes=1)
    z0, actions = torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions)
    out = bundle.rollout(z0, actions, 20, generator())
    each = bundle.members_rollout(z0, actions)
    for n in range(len(z0)):
        assert torch.allclose(out.z[n], each[out.member[n], n], atol=1e-6)
    assert sorted(set(out.member.tolist())) == [0, 1]
    assert torch.allclose(out.z[:, 0], z0, atol=1e-6)
    alone = bundle.rollout(z0, actions, 20, generator(), member=1)
    assert torch.allclose(alone.z, each[1], atol=1e-6)


def test_teacher_forced_steps_equal_free_running_ones_forced_back(config, world):
    bundle = bundle_of(config, world)
    z = torch.from_numpy(world.z).expand(2, -1, -1, -1)
    actions = append_future_actions(torch.from_numpy(world.actions), 8).expand(2, -1, -1, -1)
    forced = torch.ones(2, 24, 20, dtype=torch.bool)
    with torch.no_grad():
        run = open_loop(bundle.model, bundle.model.to_model_space(z[:, :, :-1]), actions, forced=forced)
        predicted = bundle.model.from_model_space(run.y)
    one_step = bundle.teacher_forced(torch.from_numpy(world.z), torch.from_numpy(world.actions), member=1)
    assert torch.allclose(predicted[1], one_step, atol=1e-5)
    mean = bundle.teacher_forced(torch.from_numpy(world.z), torch.from_numpy(world.actions))
    assert torch.allclose(predicted.mean(dim=0), mean, atol=1e-5)


def test_a_policy_sees_the_rollouts_own_latents(config, world):
    bundle = bundle_of(config, world, num_modes=1, noise="none")
    seen = []

    def policy(z, t):
        seen.append(z.clone())
        return torch.tanh(z[:, :2])

    out = bundle.rollout(torch.from_numpy(world.z[:, 0]), policy, 7, generator())
    assert torch.allclose(torch.stack(seen, dim=1), out.z[:, :-1], atol=1e-6)
    assert torch.allclose(out.actions, torch.tanh(out.z[:, :-1, :2]), atol=1e-6)
    unseen = torch.zeros(24, dtype=torch.bool)
    for member in (0, 1):
        replay = bundle.rollout(
            torch.from_numpy(world.z[:, 0]), out.actions, 7, generator(), member=member, lookahead=unseen
        )
        rows = out.member == member
        assert torch.allclose(replay.z[rows], out.z[rows], atol=1e-4)


def test_recorded_actions_are_read_so_many_steps_ahead_and_no_further(config, world):
    bundle = bundle_of(config, world, num_modes=1, action_lookahead=3)
    z0, actions = torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions)
    changed = actions.clone()
    changed[:, 10] += 0.5
    before, after = (bundle.rollout(z0, a, 20, generator(), member=0).z for a in (actions, changed))
    differs = (before - after).abs().amax(dim=(0, 2)) > 1e-6
    assert differs.nonzero()[0].item() == 8  # the step from observation 7 reads the actions 7 to 10
    assert differs[8:].all()


def test_altered_actions_are_not_read_ahead(config, world):
    bundle = bundle_of(config, world, num_modes=1, action_lookahead=3)
    z0, actions = torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions)
    changed = actions.clone()
    changed[:, 10] += 0.5
    foresight = torch.arange(24) % 2 == 0
    before, after = (
        bundle.rollout(z0, a, 20, generator(), member=0, lookahead=foresight).z for a in (actions, changed)
    )
    differs = (before - after).abs().amax(dim=2) > 1e-6
    assert differs[foresight, 8].all()
    assert not differs[~foresight, :11].any()
    assert differs[~foresight, 11].all()


def test_a_share_of_training_reads_nothing_ahead(config, world):
    learner = make_learner(config, world, WorkerContext(seed=1))
    ahead = learner.sampler.draw("one_step", 0, 500, 6).actions[..., 2:]
    blind = (ahead == 0).all(dim=-1).all(dim=-1).float().mean()
    assert 0.2 < blind < 0.3


def test_uncertainty_is_the_spread_of_the_members(config, world):
    bundle = bundle_of(config, world, num_modes=1)
    z0, actions = torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions)
    out = bundle.rollout(z0, actions, 20, generator())
    spread = bundle.members_rollout(z0, actions)[:, :, 1:].numpy().std(axis=0, ddof=1)
    of_latents = np.sqrt((spread**2).mean(-1))
    assert (out.uncertainty.numpy() >= of_latents - 1e-5).all()
    assert (out.uncertainty.numpy() <= of_latents + 0.5 * np.sqrt(2)).all()
    single = bundle_of(config, world, num_members=1).rollout(z0, actions, 20, generator())
    assert single.uncertainty.sum() == 0


def test_short_recorded_actions_are_refused(config, world):
    bundle = bundle_of(config, world, 1)
    with pytest.raises(ValueError, match="cannot drive 21 steps"):
        bundle.rollout(torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions), 21, generator())


def test_the_clamp_bounds_every_step(config, world):
    bundle = bundle_of(config, world, clamp_quantile=0.5, decorrelate=False)
    bundle.model.step_scale *= 100
    out = bundle.rollout(torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions), 20, generator())
    step = (out.z[:, 1:, :2] - out.z[:, :-1, :2]).abs().amax(dim=(0, 1)).numpy()
    bound = np.quantile(np.abs(np.diff(world.z, axis=1)), 0.5, axis=(0, 1))[:2]
    assert (step <= bound * 1.0001).all()
    assert (step >= bound * 0.99).all()


@pytest.mark.parametrize("noise", ["bootstrap", "heteroscedastic"])
def test_noise_spreads_rollouts_and_follows_the_generator(config, world, noise, monkeypatch):
    monkeypatch.setitem(RECON_WEIGHTS, "noise", 1.0)
    world.z[..., :2] += 0.1 * np.random.default_rng(0).normal(size=world.z[..., :2].shape).astype(np.float32)
    bundle = bundle_of(config, world, 150, noise=noise, action_lookahead=0)
    z0, actions = torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions)
    a, b = (bundle.rollout(z0, actions, 20, generator(), member=0).z for _ in range(2))
    assert torch.equal(a, b)
    quiet = bundle.members_rollout(z0, actions)[0]
    jitter = (a - quiet)[:, 1, :2].std().item()
    z = torch.from_numpy(world.z)
    residual = (z[:, 1:] - bundle.teacher_forced(z, actions, 0))[..., :2]
    assert 0.6 * residual.std().item() < jitter < 1.6 * residual.std().item()
    assert torch.equal(a[..., 2], quiet[..., 2])


def test_residuals_are_drawn_where_no_action_is_read_ahead(config, world):
    bundle, quiet = (bundle_of(config, world, num_modes=1, noise=noise) for noise in ("bootstrap", "none"))
    z0, actions = torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions)
    ahead = torch.arange(24) % 2 == 0
    a, b = (model.rollout(z0, actions, 20, generator(), lookahead=ahead) for model in (bundle, quiet))
    apart = (a.z - b.z)[:, 1:].abs().amax(dim=(1, 2))
    assert apart[ahead].max() < 1e-4
    assert apart[~ahead].min() > 1e-3
    assert torch.equal(*(model.rollout(z0, actions, 20, generator()).z for model in (bundle, quiet)))


@pytest.mark.parametrize("modes", [1, 2])
def test_nine_of_ten_true_steps_lie_among_the_draws_of_held_out_steps(config, modes):
    """Noise that nobody foresees: the draws spread as the truth does, over several steps."""
    world, pushes = make_world(120), np.random.default_rng(0).normal(size=(120, 21, 4)).astype(np.float32)
    for t in range(20):
        pushes[:, t + 1] = 0.9 * pushes[:, t] + 0.3 * pushes[:, t + 1]
    world = replace(world, z=pushes, splits=("train",) * 60 + ("dev",) * 20 + ("test",) * 40)
    bundle = bundle_of(config, world, 200, num_modes=modes)
    test = world.split("test")
    branches, _ = recorded_branches(test, 6, 0)
    covered = branch_numbers(branches, draw(bundle.rollout, branches, 0))
    assert all(0.82 < share < 0.97 for share in covered["coverage_90"]), covered
    assert all(0.38 < share < 0.65 for share in covered["coverage_50"]), covered


def test_members_share_their_noise_so_that_they_differ_in_what_they_believe_alone(config, world):
    bundle = bundle_of(config, world)
    added = bundle.noise(5, generator()).added
    assert torch.equal(added[0], added[1])
    assert added.std() > 0


def test_truncation_cuts_the_gradient(config, world):
    learner = make_learner(config, world, WorkerContext(seed=1))
    z = torch.from_numpy(world.z[:2]).expand(2, -1, -1, -1).clone().requires_grad_()
    actions = torch.from_numpy(world.actions[:2]).expand(2, -1, -1, -1)
    actions = append_future_actions(actions, 8)
    for every, reaches in ((0, True), (5, False)):
        run = open_loop(learner.model, z[:, :, :-1], actions, truncate_every=every)
        (gradient,) = torch.autograd.grad(run.y[:, :, -1].sum(), z, allow_unused=True)
        assert bool((gradient is not None) and gradient.abs().sum() > 0) is reaches


def test_a_step_against_an_independent_gru(config, world):
    """One member's step computed by torch.nn.GRUCell from the same numbers."""
    learner = make_learner(config.model_copy(update={"action_lookahead": 0}), world, WorkerContext(seed=1))
    model, k = learner.model, 1
    z = torch.from_numpy(world.z[:3, 0]).expand(2, -1, -1)
    action = torch.from_numpy(world.actions[:3, 0]).expand(2, -1, -1)
    h = torch.randn(2, 3, 32, generator=generator())
    cell = torch.nn.GRUCell(6, 32)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.cat([model.from_y.weight[k], model.from_a.weight[k]])[:, :96].T)
        cell.bias_ih.copy_(model.from_a.bias[k, 0, :96])
        cell.weight_hh.copy_(model.from_h.weight[k].T)
        cell.bias_hh.copy_(model.from_h.bias[k, 0])
        _, hidden, _, _ = model.step(z, model.from_a(action), h)
        expected = cell(torch.cat([z[k], action[k]], dim=-1), h[k])
    assert torch.allclose(hidden[k], expected, atol=1e-6)


def test_variable_lengths_do_not_disturb_the_ensemble(config):
    bundle = bundle_of(config, make_world(lengths=[5] * 4 + [20] * 20), 5)
    assert bundle.num_members == 2


def test_alternatives_are_drawn_by_their_weights_and_never_averaged():
    """A coin that nothing foretells: half of the steps jump to +1, half to -1; no rollout is ever in between."""
    rng = np.random.default_rng(0)
    world = make_world(30, 20)
    side = rng.choice([-1.0, 1.0], size=(30, 21)).astype(np.float32)
    z = np.stack([side + 0.05 * rng.normal(size=side.shape), rng.normal(size=side.shape) * 0.01], -1)
    world = replace(world, z=z.astype(np.float32), rewards=np.zeros((30, 20), np.float32))
    settings = {
        "num_members": 1,
        "hidden_size": 16,
        "head_size": 32,
        "num_modes": 2,
        "horizon": {"steps": 20, "start": 20},
        "decorrelate": False,
        "find_events": False,
        "one_step_window": 6,
        "learning_rate": 1e-2,
    }
    bundle = bundle_of(GRUConfig.model_validate(settings), world, 250)
    z0, actions = torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions)
    jumps = bundle.rollout(z0, actions, 20, generator()).z[:, 1:, 0].numpy()
    assert (np.abs(jumps) > 0.5).mean() > 0.95
    assert 0.35 < (jumps > 0).mean() < 0.65
    blurred = bundle_of(GRUConfig.model_validate(settings | {"num_modes": 1}), world, 250)
    smeared = blurred.rollout(z0, actions, 20, generator()).z[:, 1:, 0].numpy()
    assert smeared.std() < 0.8 * jumps.std()


def test_an_alternative_near_the_target_is_taken_in_training():
    candidates = torch.tensor([[[[0.0, 0.0], [1.0, 1.0]]]])
    assert torch.equal(gather_mode(candidates, torch.tensor([[1]])), torch.tensor([[[1.0, 1.0]]]))


def test_where_actions_are_read_ahead_only_what_is_likely_is_drawn(config, world):
    """FoldedWeights of 0.75 and 0.25: a blind rollout takes the second a quarter of the time, a sighted one never."""
    bundle = bundle_of(config, world, 1, num_modes=2)
    bundle.model.mode_floor_with_lookahead = 0.3
    extras = torch.zeros(2, 400, sum(bundle.model.extra_sizes))
    extras[..., -2:] = torch.tensor([0.75, 0.25]).log()
    sighted = torch.arange(400) < 200
    seen = append_future_actions(torch.zeros(400, 2, 2), 8, sighted[:, None].expand(400, 2))[:, 0]
    noise = Noise(torch.rand(400, generator=generator()))
    drawn = RolloutEngine(bundle.model)._chosen(extras, noise, seen)
    assert not drawn[:, sighted].any()
    assert 0.15 < drawn[:, ~sighted].float().mean() < 0.35


def test_a_step_sees_where_the_next_action_is_known():
    seen = append_future_actions(torch.ones(1, 4, 2), 3, torch.tensor([[True, True, True, True]]))
    assert future_known(seen, 2, 3).tolist() == [[True, True, True, False]]
    assert not future_known(pad_future_actions(torch.ones(5, 2), 3), 2, 3).any()
    assert not future_known(torch.ones(5, 2), 2, 0).any()
