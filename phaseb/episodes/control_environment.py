"""An environment that is stepped several times for each decision, as `episodes.control_hz` says.

N episodes, A action dimensions, K steps a decision.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.control import Control
from phaseb.episodes.environment import Observation, Step, VectorEnvironment


class ControlEnvironment:
    """Another environment, whose steps are decisions: an action that is repeated, or a chunk of actions.

    Rewards of the K steps are summed. An episode that ends within a decision stands still, as the environment does. All
    other attributes, such as names of the state, are the inner environment's.

    Args:
        inner: the environment, stepped as recorded.
        control: K, and what an action is.

    Attributes:
        max_steps: decisions after which every episode is truncated.
        action_low, action_high: (A,), or (K A,) of chunks.
    """

    def __init__(self, inner: VectorEnvironment, control: Control) -> None:
        self._inner, self.control = inner, control
        times = control.rows if control.action == "chunk" else 1
        self.action_low, self.action_high = np.tile(inner.action_low, times), np.tile(inner.action_high, times)
        self.max_steps = -(-inner.max_steps // control.rows)
        self.name, self.num_envs = inner.name, inner.num_envs
        self.state_size, self.frame_shape = inner.state_size, inner.frame_shape

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def reset(self, seeds: Sequence[int], *more: Any) -> Observation:
        """Start N new episodes; what an environment takes beside the seeds is handed on."""
        return self._inner.reset(seeds, *more)

    def economics(self) -> dict[str, NDArray[np.float64]]:
        """What each episode earned so far, as the environment counts it."""
        return self._inner.economics()

    def render(self) -> NDArray[np.uint8] | None:
        """One picture of every episode as it stands."""
        return self._inner.render()

    def close(self) -> None:
        """Close the environment."""
        self._inner.close()

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
