"""The base of environments that change what another one shows or takes, as Gymnasium's wrappers do.

N episodes, A action dimensions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.environment import Observation, Step, VectorEnvironment


class EnvironmentWrapper:
    """Another environment, as it is. All attributes that are not set here are the inner environment's."""

    def __init__(self, inner: VectorEnvironment) -> None:
        self._inner = inner
        self.name, self.num_envs, self.max_steps = inner.name, inner.num_envs, inner.max_steps
        self.action_low, self.action_high = inner.action_low, inner.action_high
        self.state_size, self.frame_shape = inner.state_size, inner.frame_shape

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def reset(self, seeds: Sequence[int], *more: Any) -> Observation:
        """Start N new episodes; what an environment takes beside the seeds is handed on."""
        return self._inner.reset(seeds, *more)

    def step(self, actions: NDArray[np.floating]) -> Step:
        """Apply actions (N, A)."""
        return self._inner.step(actions)

    def economics(self) -> dict[str, NDArray[np.float64]]:
        """What each episode earned so far, as the environment counts it."""
        return self._inner.economics()

    def render(self) -> NDArray[np.uint8] | None:
        """One picture of every episode as it stands."""
        return self._inner.render()

    def close(self) -> None:
        """Close the environment."""
        self._inner.close()
