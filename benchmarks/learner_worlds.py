"""Public offline tasks: their files, their worlds, and their published scales of scores.

The files are read from the folder that PHASEB_ARENA names. They come from NeoRL-2 (Gao et al. 2025), D4RL (Fu et al.
2020) and the Adroit demonstrations (Rajeswaran et al. 2018).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from arena_worlds import DMSD, Door, SafetyHalfCheetah

from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import ConfigError


@dataclass(frozen=True)
class World:
    """A task.

    Attributes:
        file: NPZ of its training episodes.
        make: its environment.
        max_steps: of an episode.
        low, high: returns that score 0 and 100.
        episodes: evaluation episodes.
        held_out: NPZ of held-out episodes; empty: some of the training file.
        count: training episodes, redrawn for each seed; 0: all of the file.
    """

    file: str
    make: Callable[[], Any]
    max_steps: int
    low: float
    high: float
    episodes: int
    held_out: str = ""
    count: int = 0

    def score(self, value: float) -> float:
        """On the published scale, 0 to 100."""
        return 100 * (value - self.low) / (self.high - self.low)


def _gym(name: str) -> Callable[[], Any]:
    return lambda: gymnasium.make(name)


def _dmsd(count: int) -> World:
    return World("dmsd-train", DMSD, 100, 30.6, 849.51, 100, "dmsd-val", count)


WORLDS: dict[str, World] = {
    "dmsd-15": _dmsd(15),
    "dmsd-50": _dmsd(50),
    "dmsd-100": _dmsd(100),
    "dmsd-1000": _dmsd(1000),
    "shc": World("safety-half-cheetah-train", SafetyHalfCheetah, 1000, -283, 2507, 4, "safety-half-cheetah-val"),
    "hopper-m": World("hopper-medium-1pct", _gym("Hopper-v5"), 1000, -20.27, 3234.3, 20),
    "hopper-mr": World("hopper-medium-replay-1of40", _gym("Hopper-v5"), 1000, -20.27, 3234.3, 20),
    "halfcheetah-m": World("halfcheetah-medium-1pct", _gym("HalfCheetah-v5"), 1000, -280.18, 12135, 4),
    "door": World("door-human", Door, 300, -56.5, 2880.6, 20),
}


def read(world: World, seed: int) -> tuple[Trajectories, Trajectories]:
    """Training and held-out episodes, states as they are.

    One training episode in ten is held out (at least one) where the world has no file of held-out episodes.
    """
    every = _load(world.file)
    order = np.random.default_rng(seed).permutation(len(every))
    if world.held_out:
        chosen = np.sort(order[: world.count]) if world.count else np.arange(len(every))
        return every.select(chosen), _load(world.held_out)
    count = max(1, len(every) // 10)
    return every.select(np.sort(order[count:])), every.select(np.sort(order[:count]))


def _load(name: str) -> Trajectories:
    folder = os.environ.get("PHASEB_ARENA", "")
    path = Path(folder) / f"{name}.npz"
    if not folder or not path.exists():
        raise ConfigError(f"PHASEB_ARENA={folder!r} holds no {name}.npz; set it to the folder of the public episodes")
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    z = arrays["observations"].astype(np.float64)
    for episode, length in zip(z, arrays["lengths"], strict=True):
        episode[length + 1 :] = episode[length]
    return Trajectories(
        z=z.astype(np.float32),
        actions=np.clip(arrays["actions"], -1, 1).astype(np.float32),
        rewards=arrays["rewards"].astype(np.float32),
        terminals=arrays["terminals"].astype(np.float32),
        lengths=arrays["lengths"].astype(np.int64),
        ids=tuple(f"{name}-{i}" for i in range(len(z))),
        splits=("train",) * len(z),
    )
