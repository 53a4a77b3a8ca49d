"""Which arm is shipped, and why: the content of promotion.json."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from phaseb.config.data import ValuationConfig
from phaseb.config.evaluation import PromotionConfig
from phaseb.promotion.explain import departed, told
from phaseb.promotion.paired import Evidence, PairedTest, Row, Scale, asked, verdict

ESTIMATE_PENALTY = 1.0
"""Without physics: spread of the estimators, in standard deviations, held against a gain."""
MAX_DEPARTURE = 1.25
"""Without physics: how many times as far from the recorded actions as the baseline's the candidate's may be, root
mean squared."""

Measure = Callable[[str, int, Sequence[int]], list[Row]]
"""(arm, policy seed, episode seeds) -> one row an episode, measured in physics."""


@dataclass(frozen=True)
class Estimate:
    """What off-policy evaluation says of the candidate less the baseline, for one policy seed.

    Attributes:
        seed: the policies' seed.
        baseline: estimated value of the baseline's policy.
        differences: one a bootstrap member: each fitted on its own resample of the recorded episodes.
        departure: how much further the candidate's actions are from the recorded ones than the baseline's (ratio of
            root mean squared distances).
    """

    seed: int
    baseline: float
    differences: tuple[float, ...]
    departure: float = 1.0


def decide(
    config: PromotionConfig, valuation: ValuationConfig, measure: Measure, seeds: Sequence[int], num_train: int,
    scale: Scale | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Test candidate against baseline in physics, no more episodes than the budget, and say which is shipped.

    Pair i plays episode seed `first_seed + i` with the policies of seed `seeds[i mod S]`, so the decision is about
    the very policies that would be shipped.

    Args:
        measure: runs a policy. Its episodes count as real ones; the decision says how many it spent.
        seeds: policy seeds that both arms were trained with.
        num_train: training episodes, the budget where `max_episodes` is null.
        scale: what recorded episodes earn; see `PairedTest`.
    """
    budget = config.max_episodes or max(4, num_train)
    pairs_of_look = np.unique(np.linspace(0, budget // 2, config.looks + 1).round().astype(int))[1:]
    test = PairedTest(valuation, asked(config), int(pairs_of_look[-1]), 1 - config.confidence, scale)
    rows: dict[str, list[Row]] = {config.candidate: [], config.baseline: []}
    trail: list[Evidence] = []
    for pairs in pairs_of_look:
        for arm, done in rows.items():
            done += _measure(measure, arm, seeds, config.first_seed, len(done), int(pairs))
        trail.append(test.look(rows[config.candidate], rows[config.baseline]))
        if verdict(trail[-1]) != "open":
            break
    result, spent = verdict(trail[-1]), sum(map(len, rows.values()))
    return _record(config, result == "promote", told(config, trail[-1], result), seeds) | {
        "method": "physics", "evidence": asdict(trail[-1]), "looks": [asdict(e) for e in trail],
        "budget": _budget(budget, spent, num_train),
    }  # fmt: skip


def decide_by_estimate(
    config: PromotionConfig, estimates: Sequence[Estimate], num_train: int = 0, scale: Scale | None = None
) -> dict[str, Any]:
    """Decide without physics: promote only where the estimators see the gain far beyond what they differ by.

    The bounds lie z + `estimate_penalty` standard deviations of the estimators (their mean over the policies' seeds)
    from the mean, z the normal's quantile: what they have wrong in common, resampling episodes cannot show. Nor can
    it where the candidate leaves the recorded actions much further behind than the baseline does: there nothing is
    promoted. How many promotions are false with this, physics tells: benchmarks/promotion.py.
    """
    per_member = np.array([e.differences for e in estimates], float).mean(0)
    value = float(np.mean([e.baseline for e in estimates]))
    spread = float(per_member.std(ddof=1)) if len(per_member) > 1 else float("inf")
    middle = float(per_member.mean())
    half = (float(stats.norm.ppf(config.confidence)) + ESTIMATE_PENALTY) * spread
    size = max(abs(value), (scale or {}).get("return", 0.0) if config.rule == "better" else 0.0)
    beyond = middle - asked(config) * size
    evidence = Evidence(middle, middle - half, middle + half, beyond, beyond - half, beyond + half, value, "return",
                        len(per_member), 1, not per_member.any())  # fmt: skip
    result, departure = verdict(evidence), max(e.departure for e in estimates)
    reason = told(config, evidence, result, True)
    if result == "promote" and departure > MAX_DEPARTURE:
        result, reason = "open", departed(config, departure)
    return _record(config, result == "promote", reason, [e.seed for e in estimates]) | {
        "method": "fqe", "evidence": asdict(evidence), "looks": [asdict(evidence)],
        "budget": _budget(0, 0, num_train), "departure": departure,
    }  # fmt: skip


def decide_without_candidate(config: PromotionConfig, reason: str, num_train: int = 0) -> dict[str, Any]:
    """The baseline is shipped because there is nothing to test."""
    return _record(config, False, f"{config.baseline} is shipped: {reason}", []) | {
        "method": "none", "evidence": None, "looks": [], "budget": _budget(0, 0, num_train),
    }  # fmt: skip


def _record(config: PromotionConfig, promoted: bool, reason: str, seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "promoted": promoted, "shipped": config.candidate if promoted else config.baseline,
        "candidate": config.candidate, "baseline": config.baseline, "rule": config.rule, "margin": config.margin,
        "min_gain": config.min_gain, "confidence": config.confidence, "seeds": list(seeds), "reason": reason,
    }  # fmt: skip


def _budget(most: int, spent: int, num_train: int) -> dict[str, int]:
    """Physics that the decision may spend and spent; what it spent counts as real, beside the training episodes."""
    return {"max_episodes": most, "spent_episodes": spent, "real_episodes": num_train + spent}


def _measure(
    measure: Measure, arm: str, seeds: Sequence[int], first_seed: int, begin: int, end: int
) -> list[Row]:
    """Pairs `begin` to `end - 1` of an arm, in order; each policy plays its episodes in one call."""
    rows: dict[int, Row] = {}
    for place, seed in enumerate(seeds):
        pairs = [i for i in range(begin, end) if i % len(seeds) == place]
        if pairs:
            rows |= dict(zip(pairs, measure(arm, seed, [first_seed + i for i in pairs]), strict=True))
    return [rows[i] for i in range(begin, end)]
