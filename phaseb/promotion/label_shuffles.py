"""A sequential test of two independent samples: what chance alone would show, by shuffling labels.

If two policies are alike, any trial might as well have been the other's. Labels are shuffled within the trials that
each look adds, so that the courses of all looks are nested. The error is spent as in `sequential_permutation_test`, and
the test is exact for policies that are alike, whatever the distribution of the outcomes.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from phaseb.promotion.sequential_permutation_test import NUM_FLIPS, TIE, alpha_spent
from phaseb.runtime.seeding import numpy_generator

Floats = NDArray[np.float64]


class LabelShuffles:
    """The courses that chance could have taken, over the looks of one test.

    Args:
        num_trials: of each policy that the test may see at most.
        alpha: chance, over all looks together, of calling equals different in the one direction that is tested.
    """

    def __init__(self, num_trials: int, alpha: float) -> None:
        self.num_trials, self.alpha = num_trials, alpha
        self._sums, self._total = np.zeros(NUM_FLIPS), 0.0
        self._counts, self._open = np.zeros(2, dtype=np.int64), np.ones(NUM_FLIPS, bool)

    def critical(self, candidate: Floats, control: Floats) -> float:
        """The difference of means that must be exceeded at this look; infinite where none could be enough.

        Args:
            candidate, control: outcomes that this look adds.
        """
        added = np.concatenate([candidate, control])
        self._sums += _shuffles(self.num_trials, int(self._counts.sum()), len(candidate), len(control)) @ added
        self._total += float(added.sum())
        self._counts += (len(candidate), len(control))
        own, other = self._counts.tolist()
        differences = self._sums / own - (self._total - self._sums) / other
        share = min(1.0, min(own, other) / self.num_trials)
        allowed = int(alpha_spent(share, self.alpha) * (NUM_FLIPS + 1)) - 1  # the observed course is one too
        may_cross = allowed - int((~self._open).sum())
        still = differences[self._open]
        if may_cross < 1 or not len(still):
            return float("inf")
        at = max(len(still) - 1 - may_cross, 0)
        bar = float(np.partition(still, at)[at]) + TIE * float(np.abs(differences).max())
        self._open &= differences <= bar
        return bar


@functools.lru_cache(maxsize=16)
def _shuffles(num_trials: int, before: int, own: int, other: int) -> Floats:
    """(NUM_FLIPS, own + other) of 1 for the candidate's trials, `own` in each row, and 0; read only.

    Args:
        num_trials, before: of the test, and trials of both policies that were seen before.
    """
    rng = numpy_generator(num_trials, f"label shuffles {before}")
    order = np.argsort(rng.random((NUM_FLIPS, own + other), dtype=np.float32), axis=1)
    return (order < own).astype(np.float64)
