"""Returns in models that are fitted for this alone, on a point mass whose returns are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from phaseb.config.dynamics import GPConfig
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.dynamics.model_returns import (
    NUM_STARTS,
    HeldOutError,
    ModelReturns,
    held_out_error,
    member_returns,
    start_states,
)
from phaseb.episodes.trajectories import Trajectories

CONFIG = GPConfig(max_transitions=150, num_hyperparameter_points=80, steps=20, num_directions=0)
H = 12


def world(policy, starts, steps=H, noise=0.0, seed=0):
    """A point mass: z = (x, v), reward -|x|. Returns z (N, T+1, 2), actions (N, T, 1) and rewards (N, T)."""
    g, z = np.random.default_rng(seed), [starts]
    actions, rewards = [], []
    for _ in range(steps):
        a = np.clip(policy(z[-1]) + noise * g.standard_normal((len(starts), 1)), -1, 1)
        v = 0.9 * z[-1][:, 1:] + 0.3 * a
        z.append(np.concatenate([z[-1][:, :1] + 0.3 * v, v], 1))
        actions.append(a)
        rewards.append(-np.abs(z[-1][:, 0]))
    return np.stack(z, 1), np.stack(actions, 1), np.stack(rewards, 1)


def recorded(count=24, steps=H):
    g = np.random.default_rng(1)
    z, actions, rewards = world(lambda z: -0.5 * z[:, :1], g.uniform(-1, 1, (count, 2)), steps, noise=0.5)
    return Trajectories(
        z=z.astype(np.float32),
        actions=actions.astype(np.float32),
        rewards=rewards.astype(np.float32),
        terminals=np.zeros_like(rewards, np.float32),
        lengths=np.full(count, steps),
        ids=tuple(map(str, range(count))),
        splits=("train",) * count,
        metrics={},
        lineage={},
    )


def gain(k):
    return lambda z, step: torch.clamp(-k * z[:, :1] - k * z[:, 1:], -1, 1)


def test_policies_are_worth_in_members_what_they_are_worth_in_the_world():
    data, gains = recorded(), (0.05, 0.3, 1.5)
    made = [member_returns(CONFIG, data, [gain(k) for k in gains], H, 0, member) for member in range(2)]
    found = ModelReturns(np.stack([values for values, _ in made], 1), tuple(error for _, error in made), H)
    for k, values in zip(gains, found.values, strict=True):
        true = world(lambda z, k=k: np.clip(-k * z.sum(1, keepdims=True), -1, 1), data.z[:, 0])[2].sum(1).mean()
        assert values.mean() == pytest.approx(true, abs=0.15 * abs(true) + 0.1)
    assert found.values.shape == (3, 2)
    assert min(found.skill) > 0.75
    assert found.bias < 1.0
    assert found.refused == ""
    for error in found.errors:
        assert error.windows > 0
    assert made[0][0] != pytest.approx(made[1][0], abs=1e-9), "members are of different episodes"


def test_starts_are_spread_over_long_episodes():
    data = recorded(3, 20)
    found = {tuple(z) for z in start_states(data, 8, 0)}
    assert found == {tuple(data.z[episode, step]) for episode in range(3) for step in (0, 8, 16)}
    many = recorded(NUM_STARTS + 20)
    assert len(start_states(many, H, 0)) == NUM_STARTS


def test_the_error_of_a_member_is_that_of_its_windows():
    data = recorded()
    model = GPDynamics.fit(CONFIG, data, 0)
    true = held_out_error(model, data, 8, 0)
    assert true.windows == 150
    paid = held_out_error(model, replace(data, rewards=data.rewards - 0.5), 8, 0)
    assert paid.bias - true.bias == pytest.approx(0.5, abs=1e-4)
    assert paid.skill[0] == true.skill[0]
    assert paid.skill[1] < true.skill[1]
    assert held_out_error(model, data.select([]), 8, 0).windows == 0


def error(windows=40, state=0.95, reward=0.9, bias=0.0):
    return HeldOutError(windows, (state, reward), bias)


def test_returns_are_refused_where_members_fail_on_held_out_windows():
    values = np.ones((2, 2))
    assert ModelReturns(values, (error(), error()), H).refused == ""
    assert ModelReturns(values, (error(5), error(5)), H).refused.startswith("10 held-out windows are too few")
    assert "held-out states is 0.30" in ModelReturns(values, (error(state=0.1), error(state=0.5)), H).refused
    assert "held-out states is 0.85, 0.9" in ModelReturns(values, (error(state=0.85),), H).refused
    assert "held-out rewards is 0.20" in ModelReturns(values, (error(reward=0.2),), H).refused
    nothing = error(0, float("nan"), float("nan"), float("nan"))
    assert "0 held-out windows" in ModelReturns(values, (nothing,), H).refused
    assert "diverge" in ModelReturns(values * np.nan, (error(),), H).refused
    assert ModelReturns(values, (error(bias=0.02), error(bias=-0.04), nothing), 10).bias == pytest.approx(0.3)
