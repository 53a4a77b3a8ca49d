"""Which arm is shipped, and why: the content of promotion.json."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from phaseb.config.promotion import PromotionConfig
from phaseb.config.valuation import ValuationConfig
from phaseb.promotion.paired import Evidence, Row, look, verdict

Measure = Callable[[str, int, Sequence[int]], list[Row]]
"""(arm, policy seed, episode seeds) -> one row an episode, measured in physics."""


@dataclass(frozen=True)
class Estimate:
    """What off-policy evaluation says of the candidate less the baseline, for one policy seed.

    Attributes:
        seed: the policies' seed.
        baseline: estimated value of the baseline's policy.
        differences: one a bootstrap member: each fitted on its own resample of the held-out episodes.
    """

    seed: int
    baseline: float
    differences: tuple[float, ...]


def decide(
    config: PromotionConfig, valuation: ValuationConfig, measure: Measure, seeds: Sequence[int], num_train: int
) -> dict[str, Any]:
    """Test candidate against baseline in physics, no more episodes than the budget, and say which is shipped.

    Pair i plays episode seed `first_seed + i` with the policies of seed `seeds[i mod S]`, so the decision is about
    the very policies that would be shipped.

    Args:
        measure: runs a policy. Its episodes count as real ones; the decision says how many it spent.
        seeds: policy seeds that both arms were trained with.
        num_train: training episodes, the budget where `max_episodes` is null.
    """
    budget = config.max_episodes or max(4, num_train)
    pairs_of_look = np.unique(np.linspace(0, budget // 2, config.looks + 1).round().astype(int))[1:]
    rows: dict[str, list[Row]] = {config.candidate: [], config.baseline: []}
    trail: list[Evidence] = []
    result = "open"
    for number, pairs in enumerate(pairs_of_look, start=1):
        for arm, done in rows.items():
            done += _measure(measure, arm, seeds, config.first_seed, len(done), int(pairs))
        trail.append(look(rows[config.candidate], rows[config.baseline], valuation, number, len(pairs_of_look),
                          1 - config.confidence))  # fmt: skip
        result = verdict(trail[-1], config.rule, config.margin)
        if result != "open":
            break
    promoted = result == "promote"
    return _record(config, promoted, _told(config, trail[-1], result), seeds) | {
        "method": "physics", "evidence": asdict(trail[-1]), "looks": [asdict(e) for e in trail],
        "budget": {"max_episodes": budget, "spent_episodes": sum(map(len, rows.values()))},
    }  # fmt: skip


def decide_by_estimate(config: PromotionConfig, estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Decide without physics: promote only where nearly every estimator sees the gain on every seed's average.

    The lower bound is the bootstrap quantile of the mean difference over seeds, less `estimate_penalty` standard
    deviations of the estimators: their errors are shared by bias that resampling episodes cannot show.
    """
    per_member = np.array([e.differences for e in estimates], float).mean(0)
    value = float(np.mean([e.baseline for e in estimates]))
    spread = float(per_member.std(ddof=1)) if len(per_member) > 1 else float("inf")
    alpha = 1 - config.confidence
    low, high = (float(np.quantile(per_member, q)) for q in (alpha, 1 - alpha))
    low, high = low - config.estimate_penalty * spread, high + config.estimate_penalty * spread
    evidence = Evidence(float(per_member.mean()), low, high, value, len(per_member), 1, alpha)
    result = verdict(evidence, config.rule, config.margin)
    promoted = result == "promote"
    return _record(config, promoted, _told(config, evidence, result, "estimated "), [e.seed for e in estimates]) | {
        "method": "fqe", "evidence": asdict(evidence), "looks": [asdict(evidence)],
        "budget": {"max_episodes": 0, "spent_episodes": 0},
    }  # fmt: skip


def decide_without_candidate(config: PromotionConfig, reason: str) -> dict[str, Any]:
    """The baseline is shipped because there is nothing to test."""
    return _record(config, False, f"{config.baseline} is shipped: {reason}", []) | {
        "method": "none", "evidence": None, "looks": [], "budget": {"max_episodes": 0, "spent_episodes": 0},
    }  # fmt: skip


def _record(config: PromotionConfig, promoted: bool, reason: str, seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "promoted": promoted, "shipped": config.candidate if promoted else config.baseline,
        "candidate": config.candidate, "baseline": config.baseline, "rule": config.rule, "margin": config.margin,
        "confidence": config.confidence, "seeds": list(seeds), "reason": reason,
    }  # fmt: skip


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


def _told(config: PromotionConfig, e: Evidence, result: str, how: str = "") -> str:
    wanted = "better" if config.rule == "better" else f"not worse by more than {config.margin:.0%}"
    interval = f"{how}difference {e.difference:+.3g} [{e.low:.3g}, {e.high:.3g}] over {e.num_pairs} "
    interval += "estimators" if how else "paired episodes"
    if result == "promote":
        return f"{config.candidate} is promoted: it is {wanted} than {config.baseline} ({interval})"
    why = "it is worse than that" if result == "reject" else "the evidence does not show it"
    return f"{config.baseline} is shipped: {config.candidate} had to be {wanted}, but {why} ({interval})"
