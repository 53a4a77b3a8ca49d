"""Is one policy better than another? A paired test over episodes, looked at several times, with a budget.

Both policies meet the same starts, so an episode's difference is free of the start's luck. The statistic is a
difference of ratios of sums (net value an hour), so every episode enters by its influence on it. What is tested is
the excess over what the rule asks for: candidate - baseline - asked x the larger of |baseline| and what recorded
episodes earn. (Two policies that hardly act differ by what they save in energy, surely and by next to nothing, until
one of them does place a part: a test of "more than zero" would promote on that.) What chance could show, and how the
error is spent over the looks, is told by `sign_flips`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phaseb.config.data import ValuationConfig
from phaseb.config.evaluation import PromotionConfig
from phaseb.promotion.sequential_permutation_test import SignFlips

Row = dict[str, float]
Verdict = Literal["promote", "reject", "open", "alike"]
Scale = dict[str, float]
"""What a recorded episode earns or loses on average, by unit."""
SIGMA = "σ"
ECONOMICS = ("good_units", "errors", "energy_wh", "duration_h")


@dataclass(frozen=True)
class Evidence:
    """What the test knows at one look, of the candidate less the baseline.

    Attributes:
        difference, low, high: estimate and bounds of the difference, in `unit`.
        excess, excess_low, excess_high: the same of what the difference exceeds that which the rule asks for.
        baseline: the baseline's own value.
        unit: what is compared: net value in $/h, or return an episode where no economics are known, or the distance
            from recorded actions in σ.
        num_pairs: paired episodes seen (estimators, where there is no physics).
        alike: true where no episode differed at all.
    """

    difference: float
    low: float
    high: float
    excess: float
    excess_low: float
    excess_high: float
    baseline: float
    unit: str
    num_pairs: int
    look: int
    alike: bool = False


class PairedTest:
    """One decision's test; `look` is called with more pairs each time.

    Args:
        asked: share of the value that the candidate must be ahead, or may be behind (negative).
        scale: what a recorded episode earns or loses on average, in the same unit; for a gain that is asked for.
        num_pairs: that it may see at most.
        alpha: chance of a wrong promotion.
    """

    def __init__(
        self,
        valuation: ValuationConfig,
        required_margin: float,
        num_pairs: int,
        alpha: float,
        scale: Scale | None = None,
    ) -> None:
        self._valuation, self._margin, self._scale = valuation, required_margin, scale or {}
        self._better, self._worse = (SignFlips(num_pairs, alpha) for _ in range(2))
        self._looks = 0

    def look(self, candidate: Sequence[Row], baseline: Sequence[Row]) -> Evidence:
        """Estimates and bounds from all pairs so far.

        Raises:
            ValueError: where the two do not have the same episodes.
        """
        if [row["seed"] for row in candidate] != [row["seed"] for row in baseline]:
            raise ValueError("a paired test needs the same episode seeds on both sides")
        self._looks += 1
        unit = unit_of([*candidate, *baseline])
        value_c, influence_c = rate(candidate, self._valuation, unit)
        value_b, influence_b = rate(baseline, self._valuation, unit)
        size = self._scale.get(unit, 0.0) if self._margin > 0 else 0.0
        fixed = size >= abs(value_b)  # then the bar does not move with the baseline's luck
        share = 0.0 if fixed else self._margin if value_b >= 0 else -self._margin
        difference, excess = value_c - value_b, value_c - (1 + share) * value_b - fixed * self._margin * size
        influence = influence_c - (1 + share) * influence_b
        # Signs are turned on both sides, so the larger of the two limits serves for both bounds.
        limit = max(self._better.critical(excess + influence), self._worse.critical(-excess - influence))
        half, plain = _half(influence, limit), _half(influence_c - influence_b, limit)
        alike = not np.any(influence_c - influence_b) and difference == 0
        return Evidence(
            difference,
            difference - plain,
            difference + plain,
            excess,
            excess - half,
            excess + half,
            value_b,
            unit,
            len(influence),
            self._looks,
            alike,
        )


def required_margin(config: PromotionConfig) -> float:
    """What the rule asks for, as a share of the baseline's value: a gain, or (negative) a loss that is allowed."""
    return config.min_gain if config.rule == "better" else -config.margin


def verdict(evidence: Evidence) -> Verdict:
    """Promote where the lower bound of the excess is above zero, reject where the upper one is below it."""
    if evidence.excess_low > 0:
        return "promote"
    if evidence.excess_high < 0:
        return "reject"
    return "alike" if evidence.alike else "open"


def unit_of(rows: Sequence[Row]) -> str:
    """What policies are compared by: net value in $/h, or the return where an episode's economics are unknown.

    Rows of `action_error` are compared by that, in recorded standard deviations (σ).
    """
    if rows and "action_error" in rows[0]:
        return SIGMA
    known = [row.get(name, np.nan) for row in rows for name in ECONOMICS]
    return "$/h" if np.isfinite(known).all() and sum(row["duration_h"] for row in rows) > 0 else "return"


def scale_of(rows: Sequence[Row], valuation: ValuationConfig) -> Scale:
    """The size of what recorded episodes earn: the mean of its absolute value, in every unit that is known of them."""
    sizes = {"return": float(np.mean(np.abs([row["return"] for row in rows])))} if rows else {}
    if rows and unit_of(rows) == "$/h":
        one_by_one = [rate([row], valuation, "$/h")[0] for row in rows]
        sizes["$/h"] = float(np.average(np.abs(one_by_one), weights=[row["duration_h"] for row in rows]))
    return sizes


def rate(rows: Sequence[Row], valuation: ValuationConfig, unit: str) -> tuple[float, NDArray[np.float64]]:
    """A policy's value, and each episode's influence on it (mean zero).

    The influence of an episode on a ratio of sums R = sum(n) / sum(h) is (n_i - R h_i) / mean(h) (delta method); the
    mean return is such a ratio too.
    """
    if unit == SIGMA:
        net, hours = -np.array([row["action_error"] for row in rows], float), np.ones(len(rows))
    elif unit == "return":
        net, hours = np.array([row["return"] for row in rows], float), np.ones(len(rows))
    else:
        good, errors, energy_wh, hours = (np.array([row[name] for row in rows], float) for name in ECONOMICS)
        net = valuation.price_per_unit * good - valuation.cost_per_error * errors
        net -= valuation.price_per_kwh * energy_wh / 1000
    value = float(net.sum() / hours.sum())
    return value, (net - value * hours) / hours.mean()


def _half(influence: NDArray[np.float64], limit: float) -> float:
    count = len(influence)
    if count < 2 or not np.isfinite(limit):
        return float("inf")
    return limit * float(influence.std(ddof=1)) / float(np.sqrt(count))
