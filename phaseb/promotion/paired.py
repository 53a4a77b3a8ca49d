"""Is one policy better than another? A paired test over episodes, looked at several times, with a budget.

Both policies meet the same starts, so an episode's difference is free of the start's luck. The statistic is a
difference of ratios of sums (net value an hour), so every episode enters by its influence on it. Looking K times
spends the error alpha by O'Brien and Fleming's function (Lan and DeMets 1983); the increments are added up (union
bound), so the chance of a wrong promotion is at most alpha however dependent the looks are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from phaseb.config.valuation import ValuationConfig

Row = dict[str, float]
Verdict = Literal["promote", "reject", "open"]


@dataclass(frozen=True)
class Evidence:
    """What the test knows at one look, of the candidate less the baseline."""

    difference: float
    low: float
    high: float
    baseline: float
    num_pairs: int
    look: int
    alpha: float


def paired_influence(
    candidate: Sequence[Row], baseline: Sequence[Row], valuation: ValuationConfig
) -> tuple[float, float, NDArray[np.float64]]:
    """Difference of net value an hour, the baseline's own, and each pair's influence (mean zero).

    The influence of an episode on a ratio of sums R = sum(n) / sum(h) is (n_i - R h_i) / mean(h) (delta method).
    Where no economics are known, the mean return takes the place of net value an hour.
    """
    value_c, influence_c = _rate(candidate, valuation)
    value_b, influence_b = _rate(baseline, valuation)
    return value_c - value_b, value_b, influence_c - influence_b


def look(
    candidate: Sequence[Row], baseline: Sequence[Row], valuation: ValuationConfig, number: int, looks: int, alpha: float
) -> Evidence:
    """One-sided lower and upper bounds of the difference after look `number` (from 1) of `looks`.

    Raises:
        ValueError: where the two do not have the same episodes.
    """
    if [row["seed"] for row in candidate] != [row["seed"] for row in baseline]:
        raise ValueError("a paired test needs the same episode seeds on both sides")
    difference, value, influence = paired_influence(candidate, baseline, valuation)
    count = len(influence)
    level = spent(number / looks, alpha) - spent((number - 1) / looks, alpha)
    error = float(influence.std(ddof=1)) / np.sqrt(count) if count > 1 else float("inf")
    half = float(stats.t.ppf(1 - level, max(count - 1, 1))) * error
    return Evidence(difference, difference - half, difference + half, value, count, number, level)


def spent(share: float, alpha: float) -> float:
    """Error spent when `share` of the information is in: 2 (1 - Phi(z_(alpha/2) / sqrt(share)))."""
    if share <= 0:
        return 0.0
    return float(2 * stats.norm.sf(stats.norm.isf(alpha / 2) / np.sqrt(share)))


def verdict(evidence: Evidence, rule: Literal["better", "not_worse"], margin: float) -> Verdict:
    """Promote where the lower bound is above what the rule asks for, reject where the upper bound is below it."""
    bar = 0.0 if rule == "better" else -margin * abs(evidence.baseline)
    if evidence.low > bar:
        return "promote"
    return "reject" if evidence.high < bar else "open"


def _rate(rows: Sequence[Row], valuation: ValuationConfig) -> tuple[float, NDArray[np.float64]]:
    def column(name: str) -> NDArray[np.float64]:
        return np.array([row.get(name, np.nan) for row in rows], float)

    hours = column("duration_h")
    net = (
        valuation.price_per_unit * column("good_units") - valuation.cost_per_error * column("errors")
        - valuation.price_per_kwh * column("energy_wh") / 1000
    )  # fmt: skip
    if not (np.isfinite(net).all() and np.isfinite(hours).all() and hours.sum() > 0):
        net, hours = column("return"), np.ones(len(rows))
    rate = float(net.sum() / hours.sum())
    return rate, (net - rate * hours) / hours.mean()
