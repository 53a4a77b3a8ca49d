"""The short-range model against a small world whose laws are known: a slider that latches, and pays on letting go."""

import numpy as np
import pytest
import torch

from phaseb.config.dynamics import GPConfig
from phaseb.dynamics.gp.discrete_states import DiscreteStates, plain_structure
from phaseb.dynamics.gp.gaussian_process import JITTER, FitPlan, GaussianProcess
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.dynamics.gp.reward_subspace import SearchPlan, find_directions
from phaseb.dynamics.protocol import load_generator
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.runtime.seeding import torch_generator
from phaseb.runtime.storage import Store

CONFIG = GPConfig(max_transitions=400, num_hyperparameter_points=200, steps=60)
f = np.float32


def potential(z):
    return -np.abs(z[..., 0] + z[..., 1])


def advance(z, a):
    """z = (position, speed, held ±1, mass): a drive and a switch. Held, it is heavier; let go near 0 pays, elsewhere
    costs; a grip catches near position -1."""
    held, grips = z[:, 2] > 0, a[:, 1] > 0
    caught, let = grips & ~held & (np.abs(z[:, 0] + 1) < 0.4), grips & held
    after = z.copy()
    after[:, 2] = np.where(caught, 1, np.where(let, -1, z[:, 2]))
    after[:, 1] = 0.9 * z[:, 1] + np.where(after[:, 2] > 0, 0.2, 0.4) * a[:, 0] - 0.05 * np.sin(z[:, 0])
    after[:, 0] = z[:, 0] + 0.3 * after[:, 1]
    good = let & (np.abs(z[:, 0] + z[:, 1]) < 0.4)
    paid = np.where(good, 1.0, -1.0) * let + 0.5 * caught
    progress = np.where(caught | let, 0.0, potential(after) - potential(z))
    return after.astype(f), (paid + progress).astype(f)


def episodes(count=40, steps=30, seed=0):
    g = np.random.default_rng(seed)
    columns = (g.uniform(-1.5, 1.5, count), g.normal(0, 0.3, count), g.choice([-1, 1], count), g.normal(0, 1, count))
    z = np.stack(columns, 1)
    states, actions, rewards = [z.astype(f)], [], []
    for _ in range(steps):
        drive = np.clip(-0.8 * states[-1][:, 0] + g.normal(0, 0.6, count), -1, 1)
        a = np.stack([drive, np.where(g.random(count) < 0.15, 1.0, -1.0)], 1).astype(f)
        after, paid = advance(states[-1], a)
        states.append(after)
        actions.append(a)
        rewards.append(paid)
    z = np.stack(states, 1)
    return Trajectories(
        z=z,
        actions=np.stack(actions, 1),
        rewards=np.stack(rewards, 1),
        terminals=np.zeros((count, steps), f),
        lengths=np.full(count, steps),
        ids=tuple(f"e{i}" for i in range(count)),
        splits=("train",) * count,
    )


@pytest.fixture(scope="module")
def model():
    return GPDynamics.fit(CONFIG, episodes(), 0)


def held_out(model):
    data = episodes(seed=9)
    z, a = data.z[:, :-1].reshape(-1, 4), data.actions.reshape(-1, 2)
    after, paid = advance(z, a)
    return z, a, after, paid, model.step(z, a, np.full(len(z), 0.5))


def test_it_finds_what_jumps_what_switches_and_what_never_moves():
    data = episodes()
    found = DiscreteStates.find(data, plain_structure(data))
    assert found.events == [2]
    assert list(found.continuous) == [0, 1]
    assert list(found.binary_actions) == [1]
    assert list(found.continuous_actions) == [0]


def test_a_step_is_foreseen(model):
    z, _, after, _, told = held_out(model)
    error = np.square(told.z[:, :2] - after[:, :2]).mean(0)
    assert (error < 0.01 * np.square(after[:, :2] - z[:, :2]).mean(0)).all()
    assert ((told.z[:, 2] > 0) == (after[:, 2] > 0)).mean() > 0.97
    np.testing.assert_allclose(told.z[:, 3], z[:, 3], rtol=1e-6)


def test_rare_rewards_are_told_apart_and_doubted_where_they_are_guessed(model):
    z, a, _, paid, told = held_out(model)
    lets = (a[:, 1] > 0) & (z[:, 2] > 0)
    assert ((told.reward > 0) == (paid > 0))[lets].mean() > 0.9
    hopeful = lets & (told.reward - told.reward_std > 0)
    assert hopeful.any()
    assert (paid[hopeful] > 0).mean() > 0.97, "what is left after the doubt is nearly sure"


def test_a_turned_latent_is_foreseen_as_well():
    """As encoders give it: the flag is spread over all dimensions, and so is what never moves."""
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))[0].astype(f)
    data = episodes()
    turned = GPDynamics.fit(CONFIG, _with(data, data.z @ turn, data.actions), 0)
    assert len(turned.states.events) == 1
    z, a, after, paid, _ = held_out(turned)
    told = turned.step(z @ turn, a, np.full(len(z), 0.5))
    back = told.z @ turn.T
    assert np.square(back[:, :2] - after[:, :2]).mean() < 0.02 * np.square(after[:, :2] - z[:, :2]).mean()
    assert ((back[:, 2] > 0) == (after[:, 2] > 0)).mean() > 0.97
    lets = (a[:, 1] > 0) & (z[:, 2] > 0)
    assert ((told.reward > 0) == (paid > 0))[lets].mean() > 0.85


def test_far_from_all_examples_the_worst_is_expected(model):
    far = np.tile(np.array([[5.0, 4.0, 1.0, 0.0]], f), (3, 1))
    told = model.step(far, np.array([[0, 1], [1, 1], [-1, 1]], f), np.full(3, 0.5))
    assert (told.reward - told.reward_std < -0.9).all()
    near = model.step(np.array([[0.2, 0.0, 1.0, 0.0]], f), np.array([[0, 1]], f), np.full(1, 0.5))
    assert told.uncertainty.min() > 5 * near.uncertainty.max()


def test_rewards_are_never_above_what_was_paid(model):
    g = np.random.default_rng(1)
    z = g.uniform(-6, 6, (500, 4)).astype(f)
    z[:, 2] = g.choice([-1, 1], 500)
    told = model.step(z, np.sign(g.normal(size=(500, 2))).astype(f), g.random(500))
    highest = episodes().rewards.max()
    assert told.reward.max() <= highest + 1e-6
    assert np.isfinite(told.z).all()


def test_a_situation_that_nobody_was_in_is_not_known():
    data = episodes()
    never = data.actions.copy()
    rows = data.z[:, :-1, 2] > 0
    never[rows, 1] = -1.0  # nobody ever let go
    states = data.z.copy()
    told = GPDynamics.fit(CONFIG.model_copy(update={"steps": 5, "num_directions": 0}), _with(data, states, never), 0)
    seen = told.step(np.array([[0, 0, 1, 0], [0, 0, 1, 0]], f), np.array([[0, 1], [0, -1]], f), np.full(2, 0.5))
    assert np.isinf(seen.uncertainty[0])
    assert np.isfinite(seen.uncertainty[1])


def _with(data, z, actions):
    return Trajectories(
        z=z,
        actions=actions,
        rewards=data.rewards,
        terminals=data.terminals,
        lengths=data.lengths,
        ids=data.ids,
        splits=data.splits,
    )


def test_rollouts_are_the_same_again_and_follow_the_policy(model):
    z0 = torch.from_numpy(episodes(seed=4).z[:, 0])

    def act(z, t):
        return torch.stack([-z[:, 0].clamp(-1, 1), torch.full_like(z[:, 0], -1.0)], 1)

    first, second = (model.rollout(z0, act, 4, torch_generator(3, "x")) for _ in range(2))
    assert torch.equal(first.z, second.z)
    assert first.z.shape == (40, 5, 4)
    assert torch.equal(first.actions[:, 2], act(first.z[:, 2], 2))
    again = GPDynamics.fit(CONFIG, episodes(), 0).rollout(z0, act, 4, torch_generator(3, "x"))
    assert torch.equal(first.rewards, again.rewards), "the same data and seed give the same model"


def test_no_steps_no_model():
    data = episodes(count=1)
    empty = data.select(np.zeros(1, bool))
    with pytest.raises(DataError, match="no training step"):
        GPDynamics.fit(CONFIG, empty, 0)


def test_frequent_rewards_point_to_their_directions():
    """The reward is the gain in -|z0 + z1| and -0.5 |z2|; z3 and z4 are decoys."""
    g = np.random.default_rng(0)
    z = g.normal(size=(300, 5))
    after = z + 0.3 * g.normal(size=z.shape)

    def value(x):
        return -np.abs(x[:, 0] + x[:, 1]) - 0.5 * np.abs(x[:, 2])

    found = find_directions(z, g.normal(size=(300, 1)), after, value(after) - value(z), SearchPlan(2), 0)
    wanted = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0]]) / np.array([[np.sqrt(2)], [1]])
    assert (np.abs(wanted @ found).max(1) > 0.97).all()


def test_rewards_that_never_vary_point_nowhere():
    z = np.random.default_rng(0).normal(size=(100, 3))
    assert find_directions(z, z[:, :1], z, np.zeros(100), SearchPlan(), 0).shape == (3, 0)


def test_a_process_equals_the_textbook_s_closed_form():
    """Against a dense computation of its mean and variance with the hyperparameters that it found."""
    g = np.random.default_rng(2)
    x = g.normal(size=(60, 2))
    y = np.stack([np.sin(2 * x[:, 0]), x[:, 0] * x[:, 1]], 1) + 0.05 * g.normal(size=(60, 2))
    process = GaussianProcess(x, y, FitPlan(rows=60, kept=60, steps=20, prior_mean=np.zeros(2)), 0)
    mean, spread = process.predict(g.normal(size=(7, 2)) * 0 + 0.3)
    length, signal, noise = (p.double().numpy() for p in process._parameters)
    rows = (x - x.mean(0)) / x.std(0)
    point = (0.3 - x.mean(0)) / x.std(0)
    for o in range(2):
        scaled = rows / np.exp(length[o])
        k = np.exp(2 * signal[o]) * np.exp(-0.5 * np.square(scaled[:, None] - scaled[None]).sum(-1))
        k += (np.exp(2 * noise[o]) + 1e-6) * np.eye(60)
        here = np.exp(2 * signal[o]) * np.exp(-0.5 * np.square(scaled - point / np.exp(length[o])).sum(-1))
        size = np.sqrt(np.square(y[:, o]).mean())
        assert mean[0, o] == pytest.approx(here @ np.linalg.solve(k, y[:, o]), abs=1e-3)
        variance = np.exp(2 * signal[o]) - here @ np.linalg.solve(k, here)
        assert spread[0, o] == pytest.approx(np.sqrt(variance) * size, rel=2e-2)


def test_the_gradients_of_the_likelihood_are_autograd_s():
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(25, size, generator=g, dtype=torch.float64) for size in (3, 2))
    process = GaussianProcess(x.numpy(), y.numpy(), FitPlan(steps=1), 0)
    length, signal, noise = (0.5 * torch.randn(2, *size, generator=g, dtype=torch.float64) for size in ((3,), (), ()))
    process._parameters = [length, signal, noise]
    found = process._likelihood_gradients(x, y)
    places = x / length.requires_grad_().exp()[:, None]
    near = (-0.5 * (places[:, :, None] - places[:, None]).square().sum(-1)).exp()
    near = (2 * signal.requires_grad_()).exp()[:, None, None] * near
    own = ((2 * noise.requires_grad_()).exp() + 1e-6)[:, None, None] * torch.eye(25, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(torch.zeros(25, dtype=torch.float64), near + own)
    wanted = torch.autograd.grad(-normal.log_prob(y.T).sum(), [length, signal, noise])
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def policy(z, t):
    return torch.stack([-z[:, 0].clamp(-1, 1), torch.where(z[:, 1] > 0.1, 1.0, -1.0)], 1)


def test_a_process_of_a_world_without_noise_still_knows_where_it_knows_less():
    """Single precision loses the variance between rows that tell all: JITTER is what is left of it."""
    g = np.random.default_rng(3)
    angle, speed, push = (g.uniform(-1, 1, 400) * scale for scale in (np.pi, 4, 2))
    x = np.stack([np.cos(angle), np.sin(angle), speed, push], 1)
    process = GaussianProcess(x, (speed * np.cos(angle) + 0.15 * push)[:, None], FitPlan(steps=40), 0)
    inside, outside = process.predict(x)[1] / process.size.numpy(), process.predict(5 * x)[1] / process.size.numpy()
    assert inside.min() >= np.sqrt(JITTER)
    length, signal, noise = (p.double().exp().numpy() for p in process._parameters)
    rows = ((x - process.shift.numpy()) * process.scale.numpy()) / length[0]
    near = signal[0] ** 2 * np.exp(-0.5 * np.square(rows[:, None] - rows[None]).sum(-1))
    solved = np.linalg.solve(near + (noise[0] ** 2 + JITTER) * np.eye(len(x)), near)
    true = signal[0] ** 2 - (near * solved).sum(0)
    assert np.abs(np.square(inside[:, 0]) - np.maximum(true, JITTER)).max() < 3 * JITTER
    assert np.median(outside) > 100 * np.median(inside)


@pytest.mark.parametrize("turned", [False, True], ids=["as recorded", "turned"])
def test_a_saved_model_predicts_the_same_to_the_bit(tmp_path, turned):
    data = episodes()
    if turned:
        turn = np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))[0].astype(f)
        data = _with(data, data.z @ turn, data.actions)
    fitted = GPDynamics.fit(CONFIG.model_copy(update={"steps": 20}), data, 0)
    fitted.uncertainty_scale, fitted.lineage = 0.25, {"episodes": 40}
    digest = fitted.save(Store.at(tmp_path))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    again = load_generator(Store.at(tmp_path))
    assert isinstance(again, GPDynamics)
    assert (again.uncertainty_scale, again.lineage) == (0.25, {"episodes": 40})
    z0 = torch.from_numpy(data.z[:, 3])
    made = [model.rollout(z0, policy, 8, torch_generator(3, "x")) for model in (fitted, again)]
    for name in ("z", "actions", "rewards", "reward_std", "terminals", "uncertainty"):
        assert torch.equal(getattr(made[0], name), getattr(made[1], name)), name
    assert len(set(made[0].z[:, -1, 2].tolist())) > 1 or turned, "something happened in them"
    assert again.save(Store.at(tmp_path / "again")) == digest


def test_recorded_actions_drive_a_rollout_as_a_policy_does(model):
    data = episodes(seed=4)
    z0, actions = torch.from_numpy(data.z[:, 0]), torch.from_numpy(data.actions)
    one = model.rollout(z0, actions, 6, torch_generator(3, "x"))
    other = model.rollout(z0, lambda z, t: actions[:, t], 6, torch_generator(3, "x"))
    assert torch.equal(one.z, other.z)
    with pytest.raises(ValueError, match="30 recorded actions cannot drive 31 steps"):
        model.rollout(z0, actions, 31, torch_generator(3, "x"))
    forecast = model.mean_rollout(z0, actions[:, :6]).numpy()
    assert np.square(forecast[:, 1:, :2] - data.z[:, 1:7, :2]).mean() < 0.05 * np.square(data.z[:, 1:7, :2]).mean()
    first = model.teacher_forced(torch.from_numpy(data.z), actions)
    assert first.shape == (40, 30, 4)
    np.testing.assert_allclose(first[:, 0].numpy(), forecast[:, 1], atol=1e-5)


def test_rollouts_draw_the_noise_that_was_fitted():
    """The world with noise on its speed: rollouts from one state spread as the world does, a forecast does not."""
    g, data = np.random.default_rng(0), episodes()
    noisy = _with(data, data.z.copy(), data.actions)
    noisy.z[:, 1:, 1] += 0.1 * g.standard_normal(noisy.z[:, 1:, 1].shape).astype(f)
    config = GPConfig(max_transitions=400, num_hyperparameter_points=200, steps=40)
    drawn = GPDynamics.fit(config, noisy, 0)
    drawn.outcomes.clear()  # nothing happens: the spread is that of the moves alone
    start, still = torch.zeros(400, 4), torch.zeros(400, 1, 2)
    start[:, 2] = -1.0
    still[..., 1] = -1.0
    z = drawn.rollout(start, still, 1, torch_generator(1, "x")).z[:, 1].numpy()
    mean = drawn.mean_rollout(start, still)[:, 1].numpy()
    assert mean[:, 1].std() < 1e-6
    assert 0.07 < z[:, 1].std() < 0.2
    assert z[:, 3].std() < 1e-6, "what never varies is not noisy"
