"""Events of an episode: a latent direction that jumps to another level, or the end of the task.

N episodes, T steps, D latent dimensions.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from phaseb.dynamics.gp.discrete_states import DiscreteStates, plain_structure
from phaseb.dynamics.structure import LatentStructure
from phaseb.episodes.trajectories import Trajectories


@dataclass(frozen=True)
class EventDetector:
    """Finds the events of episodes, by levels that the training episodes have."""

    structure: LatentStructure
    states: DiscreteStates

    @classmethod
    def fit(cls, train: Trajectories) -> "EventDetector":
        """Find the directions that jump between a few levels in the training episodes."""
        structure = plain_structure(train)
        inner = ((train.z - structure.mean) @ structure.whiten).astype(np.float32)
        return cls(structure, DiscreteStates.find(replace(train, z=inner), structure))

    def __call__(self, z: NDArray[np.floating], terminals: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(..., T) whether a step jumps or ends the task, of z (..., T+1, D) and terminals (..., T)."""
        inner = ((z - self.structure.mean) @ self.structure.whiten).astype(np.float32)
        flat = inner.reshape(-1, inner.shape[-1])
        level = self.states.outcomes(flat, np.zeros(len(flat), bool)).reshape(z.shape[:-1])
        return np.asarray((level[..., 1:] != level[..., :-1]) | (terminals > 0.5))
