from dataclasses import replace

import numpy as np
import pytest
import torch

from phaseb.config.evaluation import FqeConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.policy.fqe import fitted_q_evaluation
from phaseb.runtime.seeding import numpy_generator

CONFIG = FqeConfig(num_members=4)


@pytest.fixture(autouse=True)
def short_sight(monkeypatch):
    monkeypatch.setattr("phaseb.policy.fqe.DISCOUNT", 0.9)


@pytest.fixture(scope="module")
def recorded():
    """60 episodes of x' = 0.9 x + 0.3 u + noise, reward 1 + x u - x^2 (so that values are far from zero), random u."""
    g = numpy_generator(0, "fqe test")
    n, steps = 60, 25
    x = np.zeros((n, steps + 1, 1))
    x[:, 0] = g.uniform(-1, 1, (n, 1))
    u = g.uniform(-1, 1, (n, steps, 1))
    for t in range(steps):
        x[:, t + 1] = 0.9 * x[:, t] + 0.3 * u[:, t]
    reward = (1 + x[:, :-1] * u - x[:, :-1] ** 2)[..., 0]
    f = np.float32
    return Trajectories(
        z=x.astype(f),
        actions=u.astype(f),
        rewards=reward.astype(f),
        terminals=np.zeros((n, steps), f),
        lengths=np.full(n, steps),
        ids=tuple(map(str, range(n))),
        splits=("dev",) * n,
    )


def exact(gain, starts, discount=0.9):
    """Value of u = gain x: sum of d^t (1 + (gain - 1) x_t^2) with x_t = (0.9 + 0.3 gain)^t x_0."""
    pole = 0.9 + 0.3 * gain
    return 1 / (1 - discount) + (gain - 1) * (starts**2).mean() / (1 - discount * pole**2)


def test_values_are_those_of_a_task_with_known_ones(recorded):
    gains = [-0.8, 0.0, 0.3]
    result = fitted_q_evaluation(CONFIG, [lambda z, g=g: g * z for g in gains], recorded, seed=1)
    truth = np.array([exact(g, recorded.z[:, 0]) for g in gains])
    assert result.values.shape == (3, 4)
    np.testing.assert_allclose(result.values.mean(1), truth, atol=0.3)
    mean, low, high = result.difference(2, 0)
    assert low <= mean <= high
    assert mean == pytest.approx(truth[2] - truth[0], abs=0.2)
    np.testing.assert_allclose(result.support[1], np.sqrt(1 / 3), rtol=0.1)


def test_terminals_stop_the_value(recorded):
    ended = np.ones_like(recorded.rewards)
    result = fitted_q_evaluation(CONFIG, [torch.zeros_like], replace(recorded, terminals=ended), seed=1)
    assert result.values.mean() == pytest.approx(1 - (recorded.z[:, 0] ** 2).mean(), abs=0.1)


def test_a_policy_s_value_does_not_depend_on_who_is_beside_it(recorded):
    one, two = torch.zeros_like, lambda z: 0.3 * z
    alone = fitted_q_evaluation(CONFIG, [two], recorded, seed=3)
    beside = fitted_q_evaluation(CONFIG, [one, two], recorded, seed=3)
    np.testing.assert_array_equal(beside.values[1], alone.values[0])


def test_the_same_policy_twice_has_no_difference(recorded):
    result = fitted_q_evaluation(CONFIG, [torch.zeros_like, torch.zeros_like], recorded, seed=3)
    assert result.difference(0, 1) == (0.0, 0.0, 0.0)
