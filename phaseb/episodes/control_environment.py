"""An environment that is stepped several times for each decision, as `episodes.control_hz` says.

N episodes, A action dimensions, K steps a decision.
"""

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.control import Control
from phaseb.episodes.environment import Step, VectorEnvironment
from phaseb.episodes.environment_wrapper import EnvironmentWrapper


class ControlEnvironment(EnvironmentWrapper):
    """Another environment, whose steps are decisions: an action that is repeated, or a chunk of actions.

    Rewards of the K steps are summed. An episode that ends within a decision stands still, as the environment does.

    Args:
        inner: the environment, stepped as recorded.
        control: K, and what an action is.

    Attributes:
        max_steps: decisions after which every episode is truncated.
        action_low, action_high: (A,), or (K A,) of chunks.
    """

    def __init__(self, inner: VectorEnvironment, control: Control) -> None:
        super().__init__(inner)
        self.control = control
        times = control.rows if control.action == "chunk" else 1
        self.action_low, self.action_high = np.tile(inner.action_low, times), np.tile(inner.action_high, times)
        self.max_steps = -(-inner.max_steps // control.rows)

    def step(self, actions: NDArray[np.floating]) -> Step:
        """Take K steps of actions (N, A), or of chunks (N, K A); stops where all episodes have ended."""
        if actions.shape != (wanted := (self.num_envs, len(self.action_low))):
            raise ValueError(f"{self.name}: wanted actions {wanted}, got {actions.shape}")
        total = np.zeros(self.num_envs)
        for row in range(self.control.rows):
            observation, rewards, terminated, truncated, infos = self._inner.step(self.control.played(actions, row))
            total += rewards
            if (terminated | truncated).all():
                break
        return observation, total.astype(np.float32), terminated, truncated, infos
