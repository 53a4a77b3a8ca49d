"""What an episode earned and used, from recorded columns."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def attempt_economics(
    num_steps: int, step_s: float, success: NDArray[Any] | None = None, power_w: NDArray[Any] | None = None
) -> dict[str, float]:
    """Economics of an episode that is one attempt at one unit, by the names of `episode.METRICS`.

    Args:
        num_steps: actions taken.
        step_s: length of each, s; 0 where unknown.
        success: (T,) or (), true once the attempt succeeded; an attempt that never does is an error.
        power_w: (T,) power drawn, W.

    Returns:
        what can be known: nothing is guessed, and rates of nothing are NaN.
    """
    metrics: dict[str, float] = {}
    hours = num_steps * step_s / 3600
    if hours:
        metrics["duration_h"] = hours
    if success is not None:
        good = float(np.any(success))
        metrics |= {"good_units": good, "errors": 1 - good, "error_rate": 1 - good}
        if hours:
            metrics["mpl"] = good / hours
    if power_w is not None and hours:
        energy = float(np.sum(power_w[:num_steps], dtype=np.float64)) * step_s / 3600
        metrics["energy_wh"] = energy
        if success is not None:
            metrics["energy_wh_per_unit"] = energy / metrics["good_units"] if metrics["good_units"] else math.nan
    return metrics
