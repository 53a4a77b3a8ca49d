"""An environment whose state also says the task of each episode, as recorded episodes of several tasks do.

N episodes, S state columns, K tasks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.environment import Observation, Step, VectorEnvironment
from phaseb.episodes.environment_wrapper import EnvironmentWrapper
from phaseb.episodes.inventory import listed
from phaseb.episodes.tasks import Tasks, task_columns
from phaseb.errors import ConfigError


class TaskEnvironment(EnvironmentWrapper):
    """Another environment, with K more columns of the state (see `tasks.with_task`).

    An environment that can be asked for tasks (`reset_to`) is asked for number seed mod K of the sorted tasks. Whatever
    it was asked, it says which task each episode has (`episode_tasks`).

    Args:
        inner: the environment as recorded.
        tasks: K, in the order of the columns.

    Attributes:
        state_size: S + K.
        state_names: name and width of the parts of the state.
        condition: the tasks, as given.
        task_numbers: (N,) int64 which task each episode has; after a reset.
    """

    def __init__(self, inner: VectorEnvironment, tasks: Tasks) -> None:
        super().__init__(inner)
        self.condition = tasks
        self.state_size = inner.state_size + len(tasks)
        whole = [("state", inner.state_size)] if inner.state_size else []
        self.state_names = (*(getattr(inner, "state_names", ()) or whole), *task_columns(tasks))
        self.task_numbers: NDArray[np.int64] = np.zeros(inner.num_envs, np.int64)

    def reset(self, seeds: Sequence[int], *more: Any) -> Observation:
        """Start N new episodes, and ask which tasks they have.

        Raises:
            ConfigError: where the environment does not say it, or says another task than the recorded ones.
        """
        reset_to = getattr(self._inner, "reset_to", None)
        if reset_to is None:
            observation: Observation = self._inner.reset(seeds, *more)
        else:
            observation = reset_to(seeds, [self.condition[int(seed) % len(self.condition)] for seed in seeds])
        names = list(getattr(self._inner, "episode_tasks", ()))
        unknown = [name for name in names if name not in self.condition]
        if unknown or len(names) != self.num_envs:
            said = (
                f"says the task {unknown[0]!r}" if unknown and unknown[0] else "does not say the task of its episodes"
            )
            raise ConfigError(
                f"environment {self.name} {said}; the recorded episodes have {listed(self.condition)}: return one of "
                'these in the info of reset under "task", or as the attribute task_description or task, or set '
                "environment.id=none"
            )
        self.task_numbers = np.array([self.condition.index(name) for name in names], np.int64)
        return self._with_tasks(observation)

    def step(self, actions: NDArray[np.floating]) -> Step:
        """Apply actions (N, A); tasks do not change within an episode."""
        observation, rewards, terminated, truncated, infos = self._inner.step(actions)
        return self._with_tasks(observation), rewards, terminated, truncated, infos

    def _with_tasks(self, observation: Observation) -> Observation:
        state = observation.get("state")
        shown = np.eye(len(self.condition), dtype=np.float32 if state is None else state.dtype)[self.task_numbers]
        return {**observation, "state": shown if state is None else np.concatenate([state, shown], axis=1)}
