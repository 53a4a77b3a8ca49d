"""What leaves phaseb for other trainers: an episode with its trust, its weight and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.episode import Episode


@dataclass(frozen=True)
class Exported:
    """An episode, real or synthetic (its `source` says which), and what the gate said of it.

    Attributes:
        episode: with decoded states where it is synthetic.
        z: (T+1, D) its latents, or None.
        trust, weight: (T,) of each step; None where nobody scored it (a real step then weighs 1).
        lineage: start episode, model digest and action source of a synthetic one.
    """

    episode: Episode
    z: NDArray[np.float32] | None = None
    trust: NDArray[np.float32] | None = None
    weight: NDArray[np.float32] | None = None
    lineage: Mapping[str, str] = field(default_factory=dict)

    def step_columns(self) -> dict[str, NDArray[np.generic]]:
        """What is said of each of the T steps: `is_synthetic`, `trust` (NaN where unknown) and `weight`."""
        steps = len(self.episode)
        unknown = np.full(steps, np.nan, np.float32)
        whole = np.ones(steps, np.float32) if self.episode.source == "real" else unknown
        return {
            "is_synthetic": np.full(steps, self.episode.source == "synthetic"),
            "trust": unknown if self.trust is None else self.trust.astype(np.float32),
            "weight": whole if self.weight is None else self.weight.astype(np.float32),
        }
