"""Why an arm is shipped, in one plain sentence."""

import math

from phaseb.config.evaluation import PromotionConfig
from phaseb.promotion.paired import Evidence, Verdict


def told(config: PromotionConfig, e: Evidence, result: Verdict, estimated: bool = False) -> str:
    """The sentence, without its full stop."""
    if e.alike and result != "promote":
        return f"{config.baseline} is shipped: {config.candidate} did just the same{_where(e, estimated)}"
    if result == "promote":
        found = f"it {_found(e, estimated)} than {config.baseline}{_where(e, estimated)}"
        return f"{config.candidate} is shipped: {found}, {_surely(config, e)}"
    found = f"{config.baseline} is shipped: {config.candidate} {_found(e, estimated)}{_where(e, estimated)}"
    if result == "open":
        return f"{found}, which {_doubt(config, e)}"
    falls_short = e.difference > 0 or config.rule == "not_worse"
    return f"{found}, {_asked(config)}" if falls_short else found


def departed(config: PromotionConfig, departure: float) -> str:
    """The sentence where off-policy evaluation likes a candidate that it cannot know."""
    return (
        f"{config.baseline} is shipped: {config.candidate} acts {departure:.2g} times as far from what was recorded, "
        "too far for off-policy evaluation to tell"
    )


def _found(e: Evidence, estimated: bool) -> str:
    more = "more" if e.difference >= 0 else "less"
    size = f"{abs(e.difference):.3g}"
    if estimated:
        return f"would return {size} {more} an episode"
    return f"earned {size} $/h {more}" if e.unit == "$/h" else f"returned {size} {more} an episode"


def _where(e: Evidence, estimated: bool) -> str:
    return " by off-policy evaluation" if estimated else f" in {e.num_pairs} paired episodes"


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
