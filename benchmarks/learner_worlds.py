"""Public offline tasks: their files, their worlds as Gymnasium environments, and their published scales of scores.

The files are read from the folder that PHASEB_ARENA names. They come from NeoRL-2 (Gao et al. 2025), D4RL (Fu et al.
2020) and the Adroit demonstrations (Rajeswaran et al. 2018).
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import ConfigError

Floats = NDArray[np.float64]
Spaces = gymnasium.Env[NDArray[np.float64], NDArray[np.float32]]

SPEED_LIMIT, PENALTY = 3.2096, -100.0  # of SafetyHalfCheetah, m/s and reward a step
CHEETAH_STEP_S = 0.05
DOOR_PALM = slice(35, 38)  # palm less handle among the door's observations


class DoubleMassSpring(Spaces):
    """DMSD of NeoRL-2: two masses between two walls, three springs and dampers, one moving target each.

    Observations (6,): positions, velocities, targets. Actions (2,) in [-1, 1]: forces of 30 a. 100 steps.
    """

    STEP_S, STIFFNESS, DAMPING, MASS, FORCE = 0.2, 2.0, 4.0, 20.0, 30.0
    NUM_STEPS, CHANGE = 100, 50

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (6,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Floats, dict[str, Any]]:
        super().reset(seed=seed)
        g = self.np_random
        self._x, self._v, self._step = g.uniform(-0.25, 0.25, 2), g.uniform(-0.1, 0.1, 2), 0
        first, second = g.uniform(-1.5, 1.5, (2, 2))
        changes = g.random(2) < 0.5
        self._targets = np.stack([first, np.where(changes, second, first)])
        return self._observation(0), {}

    def step(self, action: NDArray[np.floating]) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        k, d, dt = self.STIFFNESS, self.DAMPING, self.STEP_S
        force = self.FORCE * np.clip(np.asarray(action, np.float64), -1, 1)
        x, v = self._x, self._v
        pull = -2 * k * x + k * x[::-1] - 2 * d * v + d * v[::-1]
        self._x, self._v = x + dt * v, v + dt * (pull + force) / self.MASS
        self._step += 1
        seen = self._observation(self._step)
        reward = float(-np.log(np.abs(seen[:2] - seen[4:]) + 0.01).sum())
        return seen, reward, False, self._step >= self.NUM_STEPS, {}

    def _observation(self, step: int) -> Floats:
        return np.concatenate([self._x, self._v, self._targets[int(step >= self.CHANGE)]])


class SafetyHalfCheetah(gymnasium.Wrapper[Any, Any, Any, Any]):
    """NeoRL-2's: HalfCheetah-v5 with its position, 1,000 steps, and a price on every step above the speed limit."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("HalfCheetah-v5", exclude_current_positions_from_observation=False))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        before = float(self.env.unwrapped.data.qpos[0])  # type: ignore[attr-defined]
        seen, _, ended, cut, info = self.env.step(action)
        speed = (float(seen[0]) - before) / CHEETAH_STEP_S
        reward = speed - 0.1 * float(np.square(action).sum()) if speed <= SPEED_LIMIT else PENALTY
        return seen, reward, ended, cut, info


class Door(gymnasium.Wrapper[Any, Any, Any, Any]):
    """AdroitHandDoor-v1 with D4RL's dense reward: the distance of palm and handle costs, where the package adds it."""

    def __init__(self) -> None:
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().__init__(gymnasium.make("AdroitHandDoor-v1", max_episode_steps=300))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, ended, cut, info = self.env.step(action)
        return seen, float(reward) - 0.2 * float(np.linalg.norm(seen[DOOR_PALM])), ended, cut, info


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
    return World("dmsd-train", DoubleMassSpring, 100, 30.6, 849.51, 100, "dmsd-val", count)


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
