"""Why an arm is shipped, in one plain sentence."""

import math

from phaseb.config.evaluation import PromotionConfig
from phaseb.promotion.contest import Comparison, Contest
from phaseb.promotion.paired import SIGMA, Evidence

ESTIMATORS = {"fqe": "off-policy evaluation", "model": "returns in generators"}
"""What a decision without physics goes by."""


def sentence(config: PromotionConfig, contest: Contest, one: Comparison, shipped: str, method: str = "physics") -> str:
    """Why `shipped` ships, without the full stop.

    Args:
        one: the comparison that decides: the candidate against the control that it has shown least against.
        method: what decides: physics, or one of ESTIMATORS.
    """
    e, candidate = one.evidence, one.candidate
    if shipped == candidate:
        return (
            f"{candidate} is shipped: it {_found(e, method)} than {_of(contest, one.against)}"
            f"{_where(e, method)}, {_surely(config, e)}"
        )
    if e.alike:
        other = "" if one.against == shipped else f" as {one.against}"
        return f"{shipped} is shipped: {candidate} did just the same{other}{_where(e, method)}"
    than = "" if one.against == shipped else f" than {one.against}"
    found = f"{shipped} is shipped: {candidate} {_found(e, method)}{than}{_where(e, method)}"
    if one.outcome == "open":
        return f"{found}, which {_doubt(config, e)}"
    falls_short = e.difference > 0 or config.rule == "not_worse"
    return f"{found}, {_asked(config)}" if falls_short else found


def placebo_sentence(config: PromotionConfig, one: Comparison, method: str = "physics") -> str:
    """What the comparison with the placebo says of the reason for a gain, without the full stop."""
    e = one.evidence
    found = f"it {_found(e, method)} than {one.against}, its placebo"
    if one.outcome == "promote":
        return f"{found}, {_surely(config, e)}"
    return (
        f"{found}, which {_doubt(config, e)}: the gain may be the learner's"
        if one.outcome == "open"
        else (f"{found}: the gain is not the data's")
    )


def left_early(shipped: str, candidate: str, departure: float, method: str) -> str:
    """The sentence where an estimate likes a candidate that it cannot know."""
    return (
        f"{shipped} is shipped: {candidate} acts {departure:.2g} times as far from what was recorded, "
        f"too far for {ESTIMATORS[method]} to tell"
    )


def _of(contest: Contest, control: str) -> str:
    others = len(contest.controls)
    return control if others == 1 else f"{control}, the closest of {others} arms without synthetic data,"


def _found(e: Evidence, method: str) -> str:
    more = "more" if e.difference >= 0 else "less"
    size = f"{abs(e.difference):.3g}"
    if e.unit == SIGMA:
        return f"missed recorded actions by {size} σ {'less' if e.difference >= 0 else 'more'}"
    if method in ESTIMATORS:
        return f"would return {size} {more} an episode"
    return f"earned {size} $/h {more}" if e.unit == "$/h" else f"returned {size} {more} an episode"


def _where(e: Evidence, method: str) -> str:
    kind = "held-out" if e.unit == SIGMA else "paired"
    return f" by {ESTIMATORS[method]}" if method in ESTIMATORS else f" in {e.num_pairs} {kind} episodes"


def _surely(config: PromotionConfig, e: Evidence) -> str:
    if config.rule == "better" and e.low > 0:
        return f"at {config.confidence:.0%} at least {e.low:.3g}"
    return f"at {config.confidence:.0%} within the {config.margin:.0%} that it may lose"


def _doubt(config: PromotionConfig, e: Evidence) -> str:
    if config.rule == "not_worse":
        return f"may be beyond the {config.margin:.0%} that it may lose"
    if e.low > 0:
        return f"may be less than the {config.min_gain:.0%} that are asked for"
    between = f" ({e.low:+.3g} to {e.high:+.3g})" if math.isfinite(e.low) else ""
    return f"may be chance{between}"


def _asked(config: PromotionConfig) -> str:
    if config.rule == "not_worse":
        return f"beyond the {config.margin:.0%} that it may lose"
    return f"less than the {config.min_gain:.0%} that are asked for"
