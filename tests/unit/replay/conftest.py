"""Latent episodes whose every number tells where it comes from."""

from collections.abc import Callable

import numpy as np
import pytest

from phaseb.episodes.trajectories import Trajectories

Make = Callable[..., Trajectories]


@pytest.fixture
def make_trajectories() -> Make:
    """Episodes of given lengths with z = (episode, step, …), rewards = 100·episode + step."""

    def make(lengths: list[int], latent: int = 3, action: int = 2, name: str = "e", **columns: object) -> Trajectories:
        num, steps = len(lengths), max(lengths)
        z = np.zeros((num, steps + 1, latent), dtype=np.float32)
        z[..., 0] = np.arange(num)[:, None]
        z[..., 1] = np.minimum(np.arange(steps + 1), np.array(lengths)[:, None])
        rewards = 100.0 * np.arange(num)[:, None] + np.arange(steps)
        length = np.array(lengths, dtype=np.int64)
        mask = np.arange(steps) < length[:, None]
        return Trajectories(
            z=z,
            actions=np.tile(rewards[..., None], action).astype(np.float32) * mask[..., None],
            rewards=(rewards * mask).astype(np.float32),
            terminals=np.zeros((num, steps), dtype=np.float32),
            lengths=length,
            ids=tuple(f"{name}{i}" for i in range(num)),
            splits=("train",) * num,
            **columns,  # type: ignore[arg-type]
        )

    return make
