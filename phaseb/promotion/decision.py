"""Which arm is shipped, and why: the content of promotion.json.

A candidate is promoted only where a paired test shows it better than *every* control: an intersection-union test
(Berger 1982). Each part is tested at the full error, for a candidate that is no better than some control passes only if
it passes that control's own test: the rate of false promotions stays at or below 1 - `confidence`. No control is chosen
beforehand, so choosing one inflates nothing. The error is divided by the number of candidates (Bonferroni).
"Synthetic data helped" asks for one part more, the candidate's placebo, and so has the same error.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from phaseb.config.data import ValuationConfig
from phaseb.config.evaluation import LEAST_PAIRS, PromotionConfig
from phaseb.promotion.contest import Comparison, Contest, comparisons, hardest, placebo_of, promoted
from phaseb.promotion.explain import left_early, placebo_sentence, sentence
from phaseb.promotion.paired import Evidence, PairedTest, Row, Scale, rate, required_margin, unit_of

ESTIMATE_PENALTY = 1.0
"""Without physics: spread of the estimators, in standard deviations, held against a gain."""
MAX_DEPARTURE = {"fqe": 1.25, "model": 2.0}
"""Without physics: how many times as far from the recorded actions as the baseline's the candidate's may be, root
mean squared. A model answers to actions that trees over recorded rows cannot tell apart."""

Measure = Callable[[str, int, Sequence[int]], list[Row]]
"""(arm, policy seed, episode seeds) -> one row an episode, measured in physics."""


def decide(
    config: PromotionConfig,
    contest: Contest,
    valuation: ValuationConfig,
    measure: Measure,
    seeds: Sequence[int],
    num_train: int,
    scale: Scale | None = None,
    refused: str = "",
) -> dict[str, Any]:
    """Test the candidates against the controls in physics, and say which arm is shipped.

    Pair i plays episode seed `first_seed + i` with the policies of seed `seeds[i mod S]`, so the decision is about
    the very policies that would be shipped. Where nothing is promoted, the controls play on to the end of the budget,
    and the one that earned most ships.

    Args:
        contest: who is compared.
        measure: runs a policy. Its episodes count as real ones; the decision says how many it spent.
        seeds: policy seeds that all arms were trained with.
        num_train: training episodes; they set the budget where `max_episodes` is null.
        scale: what recorded episodes earn; see `PairedTest`.
        refused: why there is no candidate, where there is none.
    """
    pairs_of_look = _pairs_of_look(config, contest, num_train)
    most, found = int(pairs_of_look[-1]), comparisons(contest)
    alpha = (1 - config.confidence) / max(1, len(contest.candidates))
    tests = [PairedTest(valuation, required_margin(config), most, alpha, scale) for _ in found]
    rows: dict[str, list[Row]] = {arm: [] for arm in contest.arms}

    def play(playing: Collection[str], pairs: int) -> None:
        for arm in (arm for arm in contest.arms if arm in playing):
            rows[arm] += _measure(measure, arm, seeds, config.first_seed, len(rows[arm]), pairs)

    for pairs in pairs_of_look:
        waiting = [one for one in found if not one.stopped]
        if not waiting:
            break
        play({arm for one in waiting for arm in (one.candidate, one.against)}, int(pairs))
        for one, test in zip(found, tests, strict=True):
            if not one.stopped:
                one.look(test, rows)
        _stop_lost(found)
    if len(contest.controls) > 1 and not any(promoted(found, name) for name in contest.candidates):
        play(contest.controls, most)
    spent = sum(map(len, rows.values()))
    return _record(config, contest, found, _earned(contest, rows, valuation), seeds, refused) | {
        "method": "physics" if spent else "none",
        "budget": _budget(most * len(contest.arms), spent, num_train),
    }


def decide_by_estimate(
    config: PromotionConfig,
    contest: Contest,
    values: Mapping[str, NDArray[np.floating]],
    support: Mapping[str, NDArray[np.floating]],
    num_train: int = 0,
    scale: Scale | None = None,
    refused: str = "",
    method: Literal["fqe", "model"] = "fqe",
    bias: float = 0.0,
) -> dict[str, Any]:
    """Decide without physics: promote only where the estimators see the gain far beyond what they differ by.

    The bounds lie z + ESTIMATE_PENALTY standard deviations of the estimators (their mean over the policies' seeds) and
    `bias` from the mean, z the normal's quantile: what they have wrong in common, resampling episodes cannot show. Nor
    can it where a policy leaves the recorded actions much further behind than the first control does: there nothing is
    promoted. How many promotions are false with this, physics tells: benchmarks/promotion.py.

    Args:
        values: by arm, (S, M) value of each seed's policy by each of M estimators, fitted on resampled episodes.
        support: by arm, (S,) root mean squared distance of each policy's actions from the recorded ones.
        refused: why there is no candidate, where there is none.
        method: the estimators: fitted Q evaluation, or returns in generators.
        bias: how far a difference may be off by what all estimators have wrong.
    """
    found = comparisons(contest)
    first, most = contest.controls[0], MAX_DEPARTURE[method]
    departure = {arm: float((support[arm] / np.maximum(support[first], 1e-6)).max()) for arm in contest.arms}
    for one in found:
        both = values[one.candidate], values[one.against]
        one.record(_estimated(config, *both, scale, len(contest.candidates), bias))
        if one.outcome == "promote" and departure[one.candidate] > most:
            one.outcome = "open"
    earned = {
        arm: _cautious(values[arm], values[first], bias) if departure[arm] <= most else float("-inf")
        for arm in contest.controls
    }
    earned[first] = 0.0
    return _record(config, contest, found, earned, range(len(values[first])), refused, departure, method) | {
        "method": method,
        "budget": _budget(0, 0, num_train),
        "departure": departure,
    }


def decide_by_error(
    config: PromotionConfig,
    contest: Contest,
    errors: Mapping[str, NDArray[np.floating]],
    num_train: int = 0,
    refused: str = "",
) -> dict[str, Any]:
    """Decide without physics and without values: by how far policies are from recorded actions, paired by episode.

    The test, and the share that the rule asks for, are those of `decide`; a smaller error is a gain. It says which
    policy copies held-out episodes better, not which earns more.

    Args:
        errors: by arm, (S, N) of each seed's policy in each held-out episode, in recorded standard deviations.
        refused: why there is no candidate, where there is none.
    """
    means = {arm: np.asarray(own, float).mean(0) for arm, own in errors.items()}
    seeds, pairs = errors[contest.controls[0]].shape
    every = {"first_seed": 0, "looks": 1, "max_episodes": pairs * max(2, len(contest.arms))}

    def measure(arm: str, seed: int, episodes: Sequence[int]) -> list[Row]:
        return [{"seed": float(i), "action_error": float(means[arm][i])} for i in episodes]

    plan = config.model_copy(update=every)
    decision = decide(plan, contest, ValuationConfig(), measure, [0], num_train, None, refused)
    method = "none" if decision["method"] == "none" else "held_out"
    return decision | {"method": method, "seeds": list(range(seeds)), "budget": _budget(0, 0, num_train)}


def _pairs_of_look(config: PromotionConfig, contest: Contest, num_train: int) -> NDArray[np.int64]:
    """Episodes an arm at each look: half as many as there are training ones, but LEAST_PAIRS, or an even share of the
    budget."""
    whole = config.max_episodes
    most = max(LEAST_PAIRS, num_train // 2) if whole is None else whole // max(2, len(contest.arms))
    return np.unique(np.linspace(0, max(1, most), config.looks + 1).round().astype(int))[1:]


def _stop_lost(found: Sequence[Comparison]) -> None:
    """Spend nothing more on a candidate that some control has held."""
    lost = {one.candidate for one in found if not one.is_placebo and one.outcome in ("reject", "alike")}
    for one in found:
        one.stopped = one.stopped or one.candidate in lost


def _earned(contest: Contest, rows: Mapping[str, Sequence[Row]], valuation: ValuationConfig) -> dict[str, float]:
    """What each control earned in the episodes that all of them played; empty where none did."""
    common = min(len(rows[arm]) for arm in contest.controls)
    played = {arm: rows[arm][:common] for arm in contest.controls}
    unit = unit_of([row for part in played.values() for row in part]) if common else "return"
    return {arm: rate(part, valuation, unit)[0] for arm, part in played.items()} if common else {}


def _estimated(
    config: PromotionConfig,
    candidate: NDArray[np.floating],
    other: NDArray[np.floating],
    scale: Scale | None,
    num_candidates: int,
    bias: float,
) -> Evidence:
    """What the estimators say of one policy against another, values (S, M)."""
    per_member = (np.asarray(candidate, float) - other).mean(0)
    value, middle = float(np.mean(other)), float(per_member.mean())
    spread = float(per_member.std(ddof=1)) if len(per_member) > 1 else float("inf")
    quantile = float(stats.norm.ppf(1 - (1 - config.confidence) / max(1, num_candidates)))
    half = (quantile + ESTIMATE_PENALTY) * spread + bias
    size = max(abs(value), (scale or {}).get("return", 0.0) if config.rule == "better" else 0.0)
    beyond = middle - required_margin(config) * size
    return Evidence(
        middle,
        middle - half,
        middle + half,
        beyond,
        beyond - half,
        beyond + half,
        value,
        "return",
        len(per_member),
        1,
        not per_member.any(),
    )


def _cautious(own: NDArray[np.floating], first: NDArray[np.floating], bias: float) -> float:
    """How much more a control is surely worth than the first."""
    gain = (np.asarray(own, float) - first).mean(0)
    return float(gain.mean() - ESTIMATE_PENALTY * (gain.std(ddof=1) if len(gain) > 1 else 0.0) - bias)


def _record(
    config: PromotionConfig,
    contest: Contest,
    found: Sequence[Comparison],
    earned: Mapping[str, float],
    seeds: Sequence[int],
    refused: str,
    departure: Mapping[str, float] | None = None,
    method: str = "physics",
) -> dict[str, Any]:
    """The decision, from the outcomes of all comparisons.

    Args:
        earned: of each control; the first that earned most is the best.
        departure: without physics, how far each arm departs from the recorded actions.
    """
    best = max(contest.controls, key=lambda arm: (earned.get(arm, 0.0), -contest.controls.index(arm)))
    winners = [name for name in contest.candidates if promoted(found, name)]
    shown = max(winners or contest.candidates, key=lambda n: hardest(found, n).evidence.difference, default=None)
    shipped = str(shown) if winners else best
    one = hardest(found, shown) if shown is not None else None
    placebo = None
    reason = f"{best} is shipped: {refused or 'no arm that uses rollouts was trained'}"
    if one is not None:
        reason, placebo = sentence(config, contest, one, shipped, method), placebo_of(found, one.candidate)
        if departure is not None and one.outcome == "open" and one.evidence.excess_low > 0:
            reason = left_early(shipped, one.candidate, departure[one.candidate], method)
    beaten = bool(winners) and placebo is not None and placebo.outcome == "promote" and config.rule == "better"
    return {
        "promoted": bool(winners),
        "helped": beaten,
        "shipped": shipped,
        "candidate": shown or "",
        "control": one.against if winners and one is not None else best,
        "controls": list(contest.controls),
        "placebo": contest.placebos.get(shown or "", ""),
        "rule": config.rule,
        "margin": config.margin,
        "min_gain": config.min_gain,
        "confidence": config.confidence,
        "seeds": list(seeds),
        "reason": reason,
        "placebo_reason": placebo_sentence(config, placebo, method) if winners and placebo is not None else "",
        "evidence": None if one is None else asdict(one.evidence),
        "looks": [] if one is None else [asdict(evidence) for evidence in one.trail],
        "comparisons": [each.to_json() for each in found],
        "earned": dict(earned),
    }


def _budget(most: int, spent: int, num_train: int) -> dict[str, int]:
    """Physics that the decision may spend and spent; what it spent counts as real, beside the training episodes."""
    return {"max_episodes": most, "spent_episodes": spent, "real_episodes": num_train + spent}


def _measure(measure: Measure, arm: str, seeds: Sequence[int], first_seed: int, begin: int, end: int) -> list[Row]:
    """Pairs `begin` to `end - 1` of an arm, in order; each policy plays its episodes in one call."""
    rows: dict[int, Row] = {}
    for place, seed in enumerate(seeds):
        pairs = [i for i in range(begin, end) if i % len(seeds) == place]
        if pairs:
            rows |= dict(zip(pairs, measure(arm, seed, [first_seed + i for i in pairs]), strict=True))
    return [rows[i] for i in range(begin, end)]
