"""Returns in processes that are fitted for this alone, on a point mass whose returns are known."""

import numpy as np
import pytest
import torch

from phaseb.config.dynamics import GPConfig
from phaseb.dynamics.model_returns import ModelReturns, Replays, chunks, play_in_process
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


def test_policies_are_worth_in_processes_what_they_are_worth_in_the_world():
    data, gains = recorded(), (0.05, 0.3, 1.5)
    made = [play_in_process(CONFIG, data, [gain(k) for k in gains], H, 0, member) for member in range(2)]
    found = ModelReturns(np.stack([values for values, _ in made], 1), tuple(replays for _, replays in made), H)
    for k, values in zip(gains, found.values, strict=True):
        true = world(lambda z, k=k: np.clip(-k * z.sum(1, keepdims=True), -1, 1), data.z[:, 0])[2].sum(1).mean()
        assert values.mean() == pytest.approx(true, abs=0.15 * abs(true) + 0.1)
    assert found.values.shape == (3, 2)
    assert min(found.skills) > 0.75
    assert found.bias < 1.0
    assert found.refused == ""
    for replays in found.replays:
        assert len(replays.recorded) > 0
    assert made[0][0] != pytest.approx(made[1][0], abs=1e-9), "processes are of different episodes"


def test_pieces_cover_long_episodes_and_keep_their_lengths():
    data = recorded(3, 20)
    found = chunks(data, 8, 100, 0)
    assert sorted(found.lengths.tolist()) == [4, 4, 4, 8, 8, 8, 8, 8, 8]
    assert found.rewards[found.mask].sum() == pytest.approx(data.rewards.sum(), rel=1e-5)
    assert len(chunks(data, 8, 5, 0)) == 5


def replays(count=40, off=0.0, error=0.0, seed=0):
    recorded = np.random.default_rng(seed).standard_normal(count)
    return Replays(recorded + off, recorded, np.full(count, error), np.ones(count))


def test_returns_are_refused_where_replays_fail():
    values = np.ones((2, 2))
    assert ModelReturns(values, (replays(), replays(seed=1)), H).refused == ""
    assert ModelReturns(values, (replays(5), replays(5)), H).refused.startswith("10 held-out replays are too few")
    assert "of held-out states, 75% are needed" in ModelReturns(values, (replays(error=0.5),), H).refused
    assert "of held-out rewards, 40% are needed" in ModelReturns(values, (replays(off=2.0),), H).refused
    constant = Replays(np.zeros(40), np.zeros(40), np.zeros(40), np.ones(40))
    assert "of held-out rewards" in ModelReturns(values, (constant,), H).refused
    assert "diverge" in ModelReturns(values * np.nan, (replays(),), H).refused
    assert ModelReturns(values, (replays(off=0.2),), 16).bias == pytest.approx(0.4)
