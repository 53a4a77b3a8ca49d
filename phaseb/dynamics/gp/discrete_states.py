"""What is discrete about a step: the levels that jumping dimensions stand at, the switches of the action, the end.

Legend: N steps, D latent dimensions, A action dimensions.
"""

import numpy as np
from numpy.typing import NDArray

from phaseb.config.world_model import WorldModelConfig
from phaseb.dynamics.structure import LatentStructure, find_structure
from phaseb.episodes.trajectories import Trajectories

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def plain_structure(real: Trajectories) -> LatentStructure:
    """The latents' own coordinates where some of their dimensions jump; where a flag is spread over dimensions, those
    in which it stands alone again."""
    own, turned = (
        find_structure(real.z, real.rewards, real.mask, WorldModelConfig(decorrelate=decorrelate))
        for decorrelate in (False, True)
    )
    return turned if len(turned.event_dims) > len(own.event_dims) else own


class Situations:
    """Codes of situations (levels before a step, switches) and of outcomes (levels after it, end), found in data.

    Args:
        real: recorded steps, in the coordinates of the structure.
        structure: which dimensions jump, and which move.

    Attributes:
        events: dimensions of the latent that jump between levels; `continuous`: those that move otherwise; the rest
            never changes.
        switches: dimensions of the action that were recorded at two values only; `graded`: the others.
    """

    def __init__(self, real: Trajectories, structure: LatentStructure) -> None:
        jumping = zip(structure.event_dims.tolist(), structure.levels, strict=True)
        self.levels = {d: levels[~np.isnan(levels)] for d, levels in jumping}
        self.events = list(self.levels)
        self.continuous = np.array([d for d in np.flatnonzero(structure.moving > 0) if d not in self.levels], np.int64)
        actions = real.actions[real.mask]
        values = [np.unique(column) for column in actions.T]
        self.switches = {a: float(v.mean()) for a, v in enumerate(values) if len(v) == 2}
        self.graded = np.array([a for a in range(len(values)) if a not in self.switches], np.int64)
        self._stands = int(np.prod([len(v) for v in self.levels.values()], dtype=np.int64))

    def _stand(self, z: Floats) -> Ints:
        """(N,) one number for the levels of all jumping dimensions of z (N, D)."""
        code = np.zeros(len(z), np.int64)
        for d, levels in self.levels.items():
            code = code * len(levels) + np.abs(z[:, d, None] - levels).argmin(1)
        return code

    def of(self, z: Floats, actions: Floats) -> Ints:
        """(N,) situations of steps from z (N, D) under actions (N, A)."""
        code = np.zeros(len(z), np.int64)
        for a, middle in self.switches.items():
            code = 2 * code + (actions[:, a] > middle)
        return code * self._stands + self._stand(z)

    def outcomes(self, after: Floats, ends: NDArray[np.bool_]) -> Ints:
        """(N,) outcomes of steps to `after` (N, D), some of which end the task."""
        return 2 * self._stand(after) + ends

    def level(self, situations: Ints) -> Ints:
        """(N,) the levels before the step, whatever the switches."""
        return situations % self._stands

    def unchanged_level(self, level: int) -> int:
        """The outcome of staying at a level."""
        return 2 * level

    def unchanged(self, situation: int) -> int:
        """The outcome of a step at which nothing jumps and nothing ends."""
        return self.unchanged_level(situation % self._stands)

    def ends(self, outcomes: Ints) -> NDArray[np.bool_]:
        return outcomes % 2 == 1

    def levelled(self, z: Floats, outcomes: Ints) -> Floats:
        """A copy of z (N, D) with the jumping dimensions at the levels of the outcomes."""
        after, code = z.copy(), outcomes // 2
        for d in reversed(self.events):
            levels = self.levels[d]
            after[:, d] = levels[code % len(levels)]
            code = code // len(levels)
        return after

    def inputs(self, z: Floats, actions: Floats, outcomes: Ints) -> NDArray[np.float64]:
        """(N, D + graded actions + jumping dimensions) what the moves of a step depend on."""
        landed = self.levelled(z, outcomes)[:, self.events]
        return np.concatenate([z, actions[:, self.graded], landed], 1).astype(np.float64)
