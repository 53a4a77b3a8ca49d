"""What evaluation and collection need of an environment: many episodes stepped at once.

N episodes, A action dimensions, S state dimensions, H × W × C a frame.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Observation = dict[str, NDArray[Any]]
"""One observation of every episode: "state" (N, S) float32 and / or "frames" (N, H, W, C) uint8."""

Step = tuple[Observation, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, NDArray[Any]]]
"""Observation, rewards (N,), terminated (N,), truncated (N,), infos by name (each (N, …))."""


@runtime_checkable
class VectorEnvironment(Protocol):
    """N episodes side by side, started together and stepped together.

    An episode that ended before the others stands still: its observation repeats, its rewards are 0, its flags stay
    up. What happens in one episode never depends on the others, nor on N.

    Attributes:
        num_envs: N.
        max_steps: steps after which every episode is truncated.
        action_low, action_high: (A,) float32, the actions' own units; actions outside are clipped.
        state_size: S, or 0 where there is no state.
        frame_shape: (H, W, C), or None where there are no frames.
    """

    num_envs: int
    max_steps: int
    action_low: NDArray[np.float32]
    action_high: NDArray[np.float32]
    state_size: int
    frame_shape: tuple[int, int, int] | None

    def reset(self, seeds: Sequence[int]) -> Observation:
        """Start N new episodes, one for each seed; everything random in an episode follows from its seed."""
        ...

    def step(self, actions: NDArray[np.floating]) -> Step:
        """Apply actions (N, A) in the environment's own units."""
        ...

    def economics(self) -> dict[str, NDArray[np.float64]]:
        """What each episode earned so far, (N,) by the names in `episode.METRICS` and `return`; NaN where unknown."""
        ...

    def render(self) -> NDArray[np.uint8] | None:
        """One picture of every episode as it stands, (N, H, W, 3), or None where it cannot be drawn."""
        ...

    def close(self) -> None:
        """Give back what the environment holds."""
        ...


class Controller(Protocol):
    """Whoever chooses actions: an operator, an oracle, a policy."""

    def reset(self, seeds: Sequence[int]) -> None:
        """Forget the last episodes; N new ones begin."""
        ...

    def act(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Actions (N, A), in the environment's own units, for the observation of every episode."""
        ...
