"""What is discrete about a step: the levels that jumping dimensions stand at, the binary actions, the end.

Legend: N steps, D latent dimensions, A action dimensions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.structure import LatentStructure, find_structure
from phaseb.episodes.trajectories import Trajectories

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def plain_structure(real: Trajectories) -> LatentStructure:
    """The latents' own coordinates, or those in which flags and constants stand alone where they are spread over
    dimensions.

    A constant of an episode, such as its task, is then certain; spread over dimensions, it would drift with them.
    """
    own, turned = (
        find_structure(real.z, real.rewards, real.mask, GRUConfig(decorrelate=decorrelate))
        for decorrelate in (False, True)
    )
    gained = len(turned.event_dims) - len(own.event_dims), (own.varying > 0).sum() - (turned.varying > 0).sum()
    return turned if gained[0] > 0 or (gained[0] == 0 and gained[1] > 0) else own


@dataclass(frozen=True)
class DiscreteStates:
    """Codes of situations (levels before a step, binary actions) and of outcomes (levels after it, end).

    Attributes:
        levels: levels of each latent dimension that jumps between a few, by dimension.
        continuous: latent dimensions that move otherwise; the rest never changes.
        binary_actions: action dimensions that were recorded at two values only, each with the middle of the two.
        continuous_actions: the other action dimensions.
    """

    levels: dict[int, Floats]
    continuous: Ints
    binary_actions: dict[int, float]
    continuous_actions: Ints

    @classmethod
    def find(cls, real: Trajectories, structure: LatentStructure) -> "DiscreteStates":
        """Find them in recorded steps, given in the coordinates of the structure."""
        jumping = zip(structure.event_dims.tolist(), structure.levels, strict=True)
        levels = {d: found[~np.isnan(found)] for d, found in jumping}
        continuous = np.array([d for d in np.flatnonzero(structure.varying > 0) if d not in levels], np.int64)
        values = [np.unique(column) for column in real.actions[real.mask].T]
        binary = {a: float(v.mean()) for a, v in enumerate(values) if len(v) == 2}
        other = np.array([a for a in range(len(values)) if a not in binary], np.int64)
        return cls(levels, continuous, binary, other)

    @property
    def events(self) -> list[int]:
        """Latent dimensions that jump between levels."""
        return list(self.levels)

    @property
    def _num_level_codes(self) -> int:
        return int(np.prod([len(v) for v in self.levels.values()], dtype=np.int64))

    def _level_code(self, z: Floats) -> Ints:
        """(N,) one number for the levels of all jumping dimensions of z (N, D)."""
        code = np.zeros(len(z), np.int64)
        for d, levels in self.levels.items():
            code = code * len(levels) + np.abs(z[:, d, None] - levels).argmin(1)
        return code

    def of(self, z: Floats, actions: Floats) -> Ints:
        """(N,) situations of steps from z (N, D) under actions (N, A)."""
        code = np.zeros(len(z), np.int64)
        for a, middle in self.binary_actions.items():
            code = 2 * code + (actions[:, a] > middle)
        return code * self._num_level_codes + self._level_code(z)

    def outcomes(self, after: Floats, ends: NDArray[np.bool_]) -> Ints:
        """(N,) outcomes of steps to `after` (N, D), some of which end the task."""
        return 2 * self._level_code(after) + ends

    def level(self, situations: Ints) -> Ints:
        """(N,) the levels before the step, whatever the binary actions."""
        return situations % self._num_level_codes

    def unchanged_level(self, level: int) -> int:
        """The outcome of staying at a level."""
        return 2 * level

    def unchanged(self, situation: int) -> int:
        """The outcome of a step at which nothing jumps and nothing ends."""
        return self.unchanged_level(situation % self._num_level_codes)

    def ends(self, outcomes: Ints) -> NDArray[np.bool_]:
        return outcomes % 2 == 1

    def with_levels(self, z: Floats, outcomes: Ints) -> Floats:
        """A copy of z (N, D) with the jumping dimensions at the levels of the outcomes."""
        after, code = z.copy(), outcomes // 2
        for d in reversed(self.events):
            levels = self.levels[d]
            after[:, d] = levels[code % len(levels)]
            code = code // len(levels)
        return after

    def inputs(self, z: Floats, actions: Floats, outcomes: Ints) -> NDArray[np.float64]:
        """(N, D + continuous actions + jumping dimensions): inputs of the process of the next latent."""
        landed = self.with_levels(z, outcomes)[:, self.events]
        return np.concatenate([z, actions[:, self.continuous_actions], landed], 1).astype(np.float64)
