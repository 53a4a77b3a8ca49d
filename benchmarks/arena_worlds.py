"""Environments of the arena, by the Gymnasium API: DMSD and SafetyHalfCheetah of NeoRL-2, and D4RL's door.

Gao et al. 2025, "NeoRL-2: Near Real-World Benchmarks for Offline Reinforcement Learning". The two were written from the
description of their equations. The tests compare them with recorded transitions.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Step = tuple[Floats, float, bool, bool, dict[str, Any]]

STEP_S, STIFFNESS, DAMPING, MASS_KG, FORCE_N = 0.2, 2.0, 4.0, 20.0, 30.0
DMSD_STEPS, TARGET_CHANGE = 100, 49
"""Steps of an episode, and the step (from 0) at which a second target replaces the first."""
CHEETAH_STEP_S, MAX_SPEED, FINE = 0.05, 3.2096, -100.0


def dmsd_step(state: Floats, action: Floats) -> Floats:
    """The next (x1, x2, v1, v2) of two masses in a row between two walls, on three springs and dampers.

    Args:
        state: (..., 4) positions and speeds.
        action: (..., 2) in [-1, 1], forces of 30 N.
    """
    x, v = state[..., :2], state[..., 2:]
    x_other, v_other = x[..., ::-1], v[..., ::-1]
    pull = -2 * STIFFNESS * x + STIFFNESS * x_other - 2 * DAMPING * v + DAMPING * v_other
    return np.concatenate([x + STEP_S * v, v + STEP_S * (pull + FORCE_N * action) / MASS_KG], axis=-1)


def dmsd_reward(state: Floats, target: Floats) -> Floats:
    """(...,) reward of the positions (..., 4) after a step, for the targets (..., 2) of that step."""
    return -np.log(np.abs(state[..., :2] - target) + 0.01).sum(axis=-1)


class DMSD(gymnasium.Env[Floats, Floats]):
    """Double mass, spring, damper: bring each of two masses to its target, which may change half-way.

    An observation is (x1, x2, v1, v2, target1, target2): the state after a step, and the targets of that step.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (6,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = np.concatenate([self.np_random.uniform(-0.25, 0.25, 2), self.np_random.uniform(-0.1, 0.1, 2)])
        targets, changes = self.np_random.uniform(-1.5, 1.5, (2, 2)), self.np_random.random(2) < 0.5
        self.targets = np.where([[False, False], changes], targets, targets[:1])
        self.time = 0
        return self._observation(self.targets[0]), {}

    def step(self, action: Floats) -> Step:
        self.state = dmsd_step(self.state, np.clip(np.asarray(action, np.float64), -1, 1))
        target = self.targets[int(self.time >= TARGET_CHANGE)]
        self.time += 1
        reward = float(dmsd_reward(self.state, target))
        return self._observation(target), reward, False, self.time >= DMSD_STEPS, {}

    def _observation(self, target: Floats) -> Floats:
        return np.concatenate([self.state, target]).astype(np.float32)


class SafetyHalfCheetah(HalfCheetahEnv):
    """HalfCheetah-v5 whose observation is the whole state (x first), fined for every step above a speed limit."""

    def __init__(self) -> None:
        super().__init__(exclude_current_positions_from_observation=False)
        self.time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        self.time = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Floats) -> tuple[NDArray[np.float64], np.float64, bool, bool, dict[str, np.float64]]:
        before = float(self.data.qpos[0])
        observation, *_, info = super().step(action)
        speed = (float(self.data.qpos[0]) - before) / CHEETAH_STEP_S
        reward = FINE if speed > MAX_SPEED else speed - 0.1 * float(np.square(action).sum())
        self.time += 1
        return observation, np.float64(reward), False, self.time >= 1000, info


class Door(gymnasium.Wrapper[Floats, Floats, Floats, Floats]):
    """AdroitHandDoor-v1 of gymnasium-robotics with D4RL's reward, which subtracts the distance of palm and handle.

    gymnasium-robotics adds 0.1 of this distance; D4RL and the recorded rewards subtract it.
    """

    def __init__(self) -> None:
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
        super().__init__(gymnasium.make("AdroitHandDoor-v1", max_episode_steps=300))

    def step(self, action: Floats) -> Step:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward) - 0.2 * float(np.linalg.norm(observation[35:38])), terminated, truncated, info
