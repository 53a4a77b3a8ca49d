"""A world of two tasks in which the right action depends on the task alone, and episodes recorded in it.

A point starts near 0 and moves by its action, at most 0.2 a step; it is rewarded for what it moves towards its task's
side. Rewards of the two tasks are opposite, so a policy that does not know the task earns 0 on average over both, from
whatever starts and however it acts: what it earns in one task it loses in the other.
"""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from phaseb.episodes.tasks import Tasks

TASKS: Tasks = ("go left", "go right")
SIDES = {"go left": -1.0, "go right": 1.0}
STEPS, STRIDE = 12, 0.2
BEST = STEPS * STRIDE
"""What a policy earns that always moves to its task's side."""


class TwoTasks(gymnasium.Env[np.ndarray, np.ndarray]):
    """State (2,): place, and a number that says nothing. The task is drawn from the seed, or named by an option."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        drawn = TASKS[int(self.np_random.integers(2))]
        self.task = (options or {}).get("task", drawn)
        self.place, self.steps = float(self.np_random.normal(0, 0.1)), 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        moved = STRIDE * float(np.clip(action[0], -1, 1))
        self.place, self.steps = self.place + moved, self.steps + 1
        return self._observation(), SIDES[self.task] * moved, False, self.steps >= STEPS, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.place, self.np_random.normal()], np.float32)


class Stubborn(TwoTasks):
    """The same world, which names its task in the info of a reset and takes no wishes."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        observation, _ = super().reset(seed=seed)
        name, self.task_name = self.task, self.task
        del self.task
        return observation, {"task": name}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.task = self.task_name
        made = super().step(action)
        del self.task
        return made


class Silent(TwoTasks):
    """The same world, which does not say its task."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = super().reset(seed=seed, options=options)
        self.hidden = self.task
        del self.task
        return observation, info


class Numbered(Silent):
    """The same world, which numbers its tasks in the info of a reset."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        number = int((options or {}).get("task", 0))
        observation, _ = super().reset(seed=seed, options={"task": TASKS[number]})
        return observation, {"task": np.int64(number)}


class Rare(Stubborn):
    """The same world, which draws a task that nobody recorded in one of six episodes."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = super().reset(seed=seed, options=options)
        return observation, {"task": "jump"} if (seed or 0) % 6 == 5 else info


class Closed(TwoTasks):
    """The same world, whose reset takes no options."""

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:  # type: ignore[override]
        return super().reset(seed=seed)


class Renamed(TwoTasks):
    """The same world, which calls its tasks otherwise."""

    task_description = "go up"


def record(number: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of as many episodes of each task in turn, whose operator moves to the task's side with some noise."""
    env, rng = TwoTasks(), np.random.default_rng(seed)
    observations, rewards = np.zeros((number, STEPS + 1, 2), np.float32), np.zeros((number, STEPS), np.float32)
    actions, tasks = np.zeros((number, STEPS, 1), np.float32), [TASKS[i % 2] for i in range(number)]
    for i, task in enumerate(tasks):
        observations[i, 0], _ = env.reset(seed=1000 * seed + i, options={"task": task})
        for t in range(STEPS):
            actions[i, t] = np.clip(SIDES[task] * 0.8 + rng.normal(0, 0.2), -1, 1)
            observations[i, t + 1], rewards[i, t], *_ = env.step(actions[i, t])
    return {"observations": observations, "actions": actions, "rewards": rewards, "tasks": np.array(tasks)}


def write(path: Path, number: int = 40, **other: np.ndarray | None) -> Path:
    """An NPZ file of such episodes; `other` arrays take the place of these, None leaves one out."""
    arrays = record(number) | other
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path
