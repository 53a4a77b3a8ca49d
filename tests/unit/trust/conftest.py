"""Latents with known dynamics, for every test of trust."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

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
