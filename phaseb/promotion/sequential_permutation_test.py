"""A sequential test without a model of the noise: what chance alone would show, told by turning signs.

If two policies are alike, each paired episode might as well have ended the other way round: the sign of its difference
is a coin. Turning the signs of what was observed many times shows every course that chance could have taken at all
looks, whatever the distribution of the differences. The error alpha is spent over the looks by O'Brien and Fleming's
function (Lan and DeMets 1983), and a course that crossed early is not counted again, so the test is exact for policies
that are alike and, its statistic being studentised, right in large samples for policies of equal value only.
"""

import functools

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from phaseb.runtime.seeding import numpy_generator

NUM_FLIPS = 10_000
TIE = 1e-5
"""Share of the largest sum there can be below which two courses are tied: their sums are in single precision. Of few
pairs that all point one way the observed course is itself the farthest, and must not count as beyond it."""


def alpha_spent(share: float, alpha: float) -> float:
    """Error spent when `share` of the information is in: 2 (1 - Phi(z_(alpha/2) / sqrt(share)))."""
    if share <= 0:
        return 0.0
    return float(2 * stats.norm.sf(stats.norm.isf(alpha / 2) / np.sqrt(share)))


class SignFlips:
    """The courses that chance could have taken, over the looks of one test.

    Args:
        num_pairs: that the test may see at most.
        alpha: chance, over all looks together, of calling equals different in the one direction that is tested.
    """

    def __init__(self, num_pairs: int, alpha: float) -> None:
        self.num_pairs, self.alpha = num_pairs, alpha
        self._signs = _signs(num_pairs)
        self._open = np.ones(NUM_FLIPS, bool)

    def critical(self, differences: NDArray[np.float64]) -> float:
        """The t-statistic of these pairs that must be exceeded at this look; infinite where none could be enough.

        Args:
            differences: (n,) of all pairs so far, n never fewer than at the look before.
        """
        count = len(differences)
        sums = self._signs[:, :count] @ differences.astype(np.float32)
        allowed = (
            int(alpha_spent(count / self.num_pairs, self.alpha) * (NUM_FLIPS + 1)) - 1
        )  # the observed course is one too
        may_cross = allowed - int((~self._open).sum())
        still = sums[self._open]
        if may_cross < 1 or not len(still):
            return float("inf")
        tie = TIE * float(np.abs(differences).sum())
        at = max(len(still) - 1 - may_cross, 0)
        bar = float(np.partition(still, at)[at]) + tie
        self._open &= sums <= bar
        return _studentised(bar, differences)


@functools.lru_cache(maxsize=4)
def _signs(num_pairs: int) -> NDArray[np.float32]:
    """(NUM_FLIPS, num_pairs) of -1 and 1, the same for every test of this size; read only."""
    signs = numpy_generator(num_pairs, "sign flips").integers(0, 2, (NUM_FLIPS, num_pairs), dtype=np.int8)
    return (2 * signs - 1).astype(np.float32)


def _studentised(total: float, differences: NDArray[np.float64]) -> float:
    """The t-statistic that pairs of these sizes have where their signs make this sum.

    Turning signs keeps the sum of squares, so t grows with the sum alone: t = s sqrt((n - 1) / (n - s^2)),
    s = sum / sqrt(sum of squares).
    """
    count, norm = len(differences), float(np.sqrt(np.square(differences).sum()))
    share = total / norm if norm > 0 else float("inf")
    left = count - share * share
    return float(share * np.sqrt((count - 1) / left)) if left > 1e-9 * count else float("inf")
