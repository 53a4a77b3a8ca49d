"""How many real episodes synthetic data is worth: N'/N, for what the gated policy earns with N takes N' without it.

S seeds, L sizes of the real-only learning curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from phaseb.runtime.seeding import numpy_generator


@dataclass(frozen=True)
class Worth:
    """N'/N with its bootstrap interval. Where `beyond`, no size of the curve earns as much: it is more than `value`."""

    value: float
    low: float
    high: float
    beyond: bool

    def __str__(self) -> str:
        return f"> {self.value:.3g}" if self.beyond else f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def episodes_worth(
    sizes: Sequence[int],
    real_only: NDArray[np.floating],
    gated: NDArray[np.floating],
    seed: int = 0,
    num_bootstrap: int = 1000,
    confidence: float = 0.95,
) -> Worth:
    """What the gated policy's earnings are worth in real episodes.

    The learning curve is fitted monotone over log N, mean of seeds at each size; between sizes it is linear. What is
    earned below the curve's start counts as its start (1). Seeds are resampled together, for data are shared by seed.

    Args:
        sizes: ascending numbers of real episodes, {N, 2N, 4N, 8N}; the first is the gated policy's own N.
        real_only: (L, S) net value an hour at each size.
        gated: (S,) at N.
        seed: of the bootstrap.

    Raises:
        ValueError: where sizes do not ascend or shapes differ.
    """
    values, others = np.asarray(real_only, float), np.asarray(gated, float)
    if list(sizes) != sorted(set(sizes)) or len(sizes) < 2:
        raise ValueError(f"two or more ascending sizes are needed, got {list(sizes)}")
    if values.shape != (len(sizes), len(others)):
        raise ValueError(f"real_only is {values.shape}, wanted (sizes, seeds) = {(len(sizes), len(others))}")
    value, beyond = _ratio(sizes, values.mean(1), float(others.mean()))
    rng, draws = numpy_generator(seed, "episodes worth"), []
    for _ in range(num_bootstrap):
        rows = rng.integers(len(others), size=len(others))
        draws.append(_ratio(sizes, values[:, rows].mean(1), float(others[rows].mean()))[0])
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Worth(value, float(low), float(high), beyond)


def _ratio(sizes: Sequence[int], means: NDArray[np.float64], wanted: float) -> tuple[float, bool]:
    """N'/N on the monotone curve, and whether it lies beyond the largest size."""
    place = np.log(np.asarray(sizes, float))
    curve = IsotonicRegression().fit_transform(place, means)
    if wanted >= curve[-1]:
        return sizes[-1] / sizes[0], bool(wanted > curve[-1])
    if wanted <= curve[0]:
        return 1.0, False
    after = int(np.argmax(curve > wanted))
    before = after - 1
    share = (wanted - curve[before]) / (curve[after] - curve[before])
    return float(np.exp(place[before] + share * (place[after] - place[before])) / sizes[0]), False
