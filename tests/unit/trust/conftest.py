"""Latents with known dynamics, for every test of trust."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from phaseb.episodes.trajectories import Trajectories

Latents = Callable[..., NDArray[np.float32]]


def make_oscillators(
    num_episodes: int, seed: int, num_steps: int = 60, num_dimensions: int = 16, noise: float = 0.02
) -> NDArray[np.float32]:
    """(N, T+1, D) of squashed mixtures of six oscillators of random pace and size, with sensor noise."""
    rng = np.random.default_rng(seed)
    pace = rng.uniform(0.02, 0.12, (num_episodes, 1, 6))
    size, phase = rng.uniform(0.5, 1.5, (num_episodes, 1, 6)), rng.uniform(0, 2 * np.pi, (num_episodes, 1, 6))
    waves = size * np.sin(2 * np.pi * pace * np.arange(num_steps + 1)[None, :, None] + phase)
    mixing = np.random.default_rng(99).normal(size=(6, num_dimensions)) / np.sqrt(3)
    z = 1.5 * np.tanh(waves @ mixing) + noise * rng.normal(size=(num_episodes, num_steps + 1, num_dimensions))
    return z.astype(np.float32)


@pytest.fixture
def oscillators() -> Latents:
    return make_oscillators


def make_trajectories(
    num_episodes: int, seed: int, num_steps: int = 30, num_dimensions: int = 4, name: str = "real", gain: float = 1.0
) -> Trajectories:
    """A stable linear system pushed by smooth actions, with a reward that follows the state: easy to predict.

    `gain` multiplies its dynamics: 1 is the real system, anything else a model that got it wrong.
    """
    rng, system = np.random.default_rng(seed), np.random.default_rng(7)
    turn = np.linalg.qr(system.normal(size=(num_dimensions, num_dimensions)))[0] * 0.95 * gain
    push = system.normal(size=(1, num_dimensions)) * 0.5
    pace, phase = rng.uniform(0.1, 0.5, (num_episodes, 1)), rng.uniform(0, 6, (num_episodes, 1))
    actions = np.sin(pace * np.arange(num_steps) + phase)
    z = np.zeros((num_episodes, num_steps + 1, num_dimensions))
    z[:, 0] = rng.normal(size=(num_episodes, num_dimensions))
    for t in range(num_steps):
        z[:, t + 1] = z[:, t] @ turn + actions[:, t, None] * push
    z[:, 1:] += 0.02 * rng.normal(size=z[:, 1:].shape)
    rewards = np.tanh(z[:, 1:, 0]) + 0.02 * rng.normal(size=(num_episodes, num_steps))
    return Trajectories(
        z=z.astype(np.float32),
        actions=actions[..., None].astype(np.float32),
        rewards=rewards.astype(np.float32),
        terminals=np.zeros((num_episodes, num_steps), np.float32),
        lengths=np.full(num_episodes, num_steps),
        ids=tuple(f"{name}-{i:06d}" for i in range(num_episodes)),
        splits=("train",) * num_episodes,
    )


@pytest.fixture(scope="session")
def trajectories() -> Callable[..., Trajectories]:
    return make_trajectories
