"""Training: it learns, it resumes to the bit, members do not mix, bad data and divergence are refused clearly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from phaseb.dynamics.gru_ensemble import learner as learner_module
from phaseb.dynamics.gru_ensemble.action_lookahead import append_future_actions
from phaseb.dynamics.gru_ensemble.learner import make_learner
from phaseb.dynamics.gru_ensemble.windows import WindowSampler
from phaseb.dynamics.protocol import load_generator
from phaseb.dynamics.statistics import latent_statistics, open_loop_rmse
from phaseb.errors import DataError, DivergenceError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.checkpoint import flatten, unflatten
from phaseb.runtime.storage import Store
from tests.unit.dynamics.conftest import make_world


def train(learner, start=0, stop=None):
    return [learner.step(s) for s in range(start, stop or learner.num_steps)]


def fewer(config, **changes):
    return config.model_validate(config.model_dump() | changes)


@pytest.fixture(scope="module")
def trained():
    from phaseb.config.dynamics import GRUConfig

    config = GRUConfig.model_validate(
        {
            "num_members": 2,
            "hidden_size": 32,
            "head_size": 32,
            "num_steps": 400,
            "batch_size": 64,
            "one_step_window": 6,
            "horizon": {"steps": 20, "start": 4},
            "learning_rate": 5e-3,
        }
    )
    learner = make_learner(config, make_world(40), WorkerContext(seed=3))
    logs = train(learner)
    return learner, logs


def test_it_learns_the_world_and_holds_what_is_constant(trained):
    learner, logs = trained
    bundle, test = learner.bundle(), make_world(50, seed=9)
    z = bundle.mean_rollout(torch.from_numpy(test.z[:, 0]), torch.from_numpy(test.actions)).numpy()
    assert open_loop_rmse(test.z[:, 1:, :2], z[:, 1:, :2])[-1] < 0.35
    assert np.array_equal(z[:, :, 2], test.z[:, :, 2])
    assert (np.abs(z[:, 1:, 3] - test.z[:, 1:, 3]) < 0.5).mean() > 0.9
    statistics = latent_statistics(test.z[:, 1:], z[:, 1:])
    assert 0.9 < statistics["std_ratio"] < 1.1
    assert logs[-1]["dynamics/gru/loss/total"] < 0.3 * logs[0]["dynamics/gru/loss/total"]


def test_rewards_come_back_in_their_own_units(trained):
    learner, _ = trained
    test = make_world(50, seed=9)
    out = learner.bundle().rollout(
        torch.from_numpy(test.z[:, 0]), torch.from_numpy(test.actions), 20, torch.Generator().manual_seed(0)
    )
    assert np.sqrt(np.square(out.rewards.numpy() - test.rewards).mean()) < 0.35 * test.rewards.std()
    assert out.terminals.sum() == 0
    assert out.lengths.tolist() == [20] * 50


def test_resuming_gives_the_same_bits(world, config, context):
    config = fewer(config, num_steps=12)
    whole = make_learner(config, world, context)
    train(whole)
    half = make_learner(config, world, context)
    train(half, 0, 6)
    state = unflatten(*flatten(half.state_dict()))
    rest = make_learner(config, world, context)
    rest.load_state_dict(state)
    train(rest, 6)
    for name, tensor in whole.bundle().model.state_dict().items():
        same = rest.bundle().model.state_dict()[name]
        assert torch.equal(tensor.nan_to_num(), same.nan_to_num()), name


def test_a_member_alone_trains_as_it_does_among_others(world, config, context, monkeypatch):
    """Batches are drawn for all members at once, so only what a member computes is compared: one step, same rows."""
    monkeypatch.setattr("phaseb.dynamics.gru_ensemble.optimizer.MAX_GRAD_NORM", 1e-3)
    monkeypatch.setattr(learner_module, "EXPLOSION", 1e30)
    config = fewer(config, num_steps=1)
    learner = make_learner(config, world, context)
    before = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
    learner.step(0)
    spoiled = make_learner(config, world, context)
    with torch.no_grad():
        for p in spoiled.model.parameters():
            p[1] *= 30
    spoiled.step(0)
    for (name, a), (_, b) in zip(learner.model.named_parameters(), spoiled.model.named_parameters(), strict=True):
        assert torch.allclose(a[0], b[0], atol=1e-7), name
    assert any(not torch.equal(before[n], p) for n, p in learner.model.named_parameters())


def test_two_workers_draw_the_halves_of_one_batch(world, config):
    whole = make_learner(config, world, WorkerContext(seed=3)).sampler.draw("one_step", 5, 32, 6)
    parts = [
        make_learner(config, world, WorkerContext(seed=3, rank=r, world_size=2)).sampler.draw("one_step", 5, 32, 6)
        for r in range(2)
    ]
    assert torch.equal(whole.z, torch.cat([p.z for p in parts], dim=1))
    assert torch.equal(whole.actions, torch.cat([p.actions for p in parts], dim=1))


def test_windows_are_pieces_of_episodes_and_masks_cover_their_steps(config, context):
    world = make_world(lengths=[3] * 12 + [20] * 12)
    windows = make_learner(fewer(config, decorrelate=False), world, context).sampler.draw("x", 0, 64, 6)
    for k in range(2):
        for b in range(64):
            first = windows.z[k, b, 0].numpy()
            hits = [(n, t) for n in range(24) for t in range(15) if np.array_equal(world.z[n, t], first)]
            assert hits
            n, t = hits[0]
            assert windows.mask[k, b].sum() == min(6, world.lengths[n] - t)


@pytest.mark.parametrize("ahead", [0, 3, 30])
def test_windows_know_what_the_whole_episodes_would_tell(config, context, ahead, monkeypatch):
    data = make_world(4, lengths=[20, 9, 14, 20])
    data = replace(data, z=data.z * 3 + 1)
    rng = np.random.default_rng(0)
    mean, whiten = data.z.mean((0, 1)), rng.normal(size=(data.z.shape[-1],) * 2).astype(np.float32)
    monkeypatch.setattr("phaseb.dynamics.gru_ensemble.windows.BLIND_SHARE", 0.0)
    settings = fewer(config, action_lookahead=ahead)
    sampler = WindowSampler(data, settings, context, mean, whiten)
    drawn = sampler.draw("one_step", 3, 16, 6)
    inner = (data.z - mean) @ whiten
    seen = append_future_actions(torch.from_numpy(data.actions), ahead, torch.from_numpy(data.mask)).numpy()
    for z, actions, mask in zip(
        drawn.z.flatten(0, 1), drawn.actions.flatten(0, 1), drawn.mask.flatten(0, 1), strict=True
    ):
        gaps = [(np.abs(inner[n, t : t + 7] - z.numpy()).max(), n, t) for n in range(4) for t in range(15)]
        gap, episode, start = min(gaps)
        kept = mask.numpy() > 0
        assert gap < 1e-4
        assert np.allclose(seen[episode, start : start + 6][kept], actions.numpy()[kept])


def test_what_lies_beyond_an_episodes_end_does_not_matter(config, context):
    config = fewer(config, num_steps=3)
    short = make_world(lengths=[8] * 12 + [20] * 12)
    garbled = make_world(lengths=[8] * 12 + [20] * 12)
    garbled.z[:12, 9:] = 77.0
    garbled.rewards[:12, 8:] = 1e3
    clean_z = short.z.copy()
    clean_z[:12, 9:] = short.z[:12, 8:9]
    short.z[:] = clean_z
    logs = [train(make_learner(config, data, context)) for data in (short, garbled)]
    for a, b in zip(*logs, strict=True):
        assert a["dynamics/gru/recon/one_step"] == pytest.approx(b["dynamics/gru/recon/one_step"], rel=1e-5)
        assert a["dynamics/gru/recon/reward"] == pytest.approx(b["dynamics/gru/recon/reward"], rel=1e-5)


def test_short_episodes_are_refused_with_the_remedy(config, context):
    with pytest.raises(DataError, match=r"has 12 steps, fewer than dynamics.gru.horizon.steps=20.*to 12 or less"):
        make_learner(config, make_world(steps=12), context)


def test_no_training_episodes_and_nan_are_refused(world, config, context):
    with pytest.raises(DataError, match="no training episodes"):
        make_learner(config, make_world(split="test"), context)
    world.z[3, 4, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        make_learner(config, world, context)


def test_divergence_names_the_step(world, config, context, monkeypatch):
    learner = make_learner(config, world, context)
    learner.step(0)
    with torch.no_grad():
        learner.model.head.weight.fill_(float("nan"))
    with pytest.raises(DivergenceError, match="step 1: loss nan"):
        learner.step(1)
    exploding = make_learner(config, world, context)
    monkeypatch.setattr(learner_module, "EXPLOSION", 1e-9)
    with pytest.raises(DivergenceError, match="step 0"):
        exploding.step(0)


def test_rewards_all_zero_and_dead_dimension_train(world, config, context):
    world.rewards[:] = 0
    world.z[..., 1] = 0
    logs = train(make_learner(fewer(config, num_steps=5), world, context))
    assert all(np.isfinite(v) for v in logs[-1].values())


def test_one_operator_who_always_acts_alike_trains_and_rolls_out(world, config, context):
    """Actions then say nothing that time does not: no column of theirs varies between episodes."""
    alike = replace(world, actions=np.repeat(world.actions[:1], len(world), axis=0))
    learner = make_learner(fewer(config, num_steps=5), alike, context)
    logs = train(learner)
    made = learner.bundle().rollout(
        torch.from_numpy(alike.z[:, 0]), torch.from_numpy(alike.actions), 20, torch.Generator().manual_seed(0)
    )
    assert all(np.isfinite(v) for v in logs[-1].values())
    assert torch.isfinite(made.z).all()
    assert torch.isfinite(made.uncertainty).all()


def test_critic_weight_without_critic_is_a_mistake(world, config, context):
    with pytest.raises(ValueError, match="no discriminator"):
        make_learner(fewer(config, weights={"trust": 0.1}), world, context)


def test_save_and_load_give_the_same_rollouts(trained, tmp_path):
    learner, _ = trained
    bundle = learner.bundle()
    store = Store.at(tmp_path / "wm")
    bundle.save(store)
    back = load_generator(store)
    world = make_world(10, seed=4)
    z0, actions = torch.from_numpy(world.z[:, 0]), torch.from_numpy(world.actions)
    a, b = (m.rollout(z0, actions, 20, torch.Generator().manual_seed(1)) for m in (bundle, back))
    assert torch.equal(a.z, b.z)
    assert torch.equal(a.rewards, b.rewards)
    assert back.config == bundle.config


def test_loading_another_version_is_a_data_error(trained, tmp_path):
    learner, _ = trained
    from phaseb.runtime.checkpoint import load_checkpoint, save_checkpoint

    store = Store.at(tmp_path / "wm")
    learner.bundle().save(store)
    tensors, meta = load_checkpoint(store)
    meta["config"]["hidden_size"] = 64
    save_checkpoint(store, tensors, meta)
    with pytest.raises(DataError, match="another version"):
        load_generator(store)
