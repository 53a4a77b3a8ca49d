"""One sentence that says whether the synthetic data helped, by how much, and what it would have cost to collect."""

from collections.abc import Mapping
from typing import Any

BASELINE, GATED = "real_only", "trust_weighted"


def verdict(arms: Mapping[str, Any], promotion: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    """The verdict on a run.

    Args:
        arms: for each arm the intervals of its metrics.
        promotion: the decision, with `shipped` and `reason`.
        numbers: of the synthetic data.
    """
    auc = numbers.get("judge_auc")
    seen = "" if auc is None else f" The worst fresh judge tells it from real at AUC {auc:.2f} (0.5 is a coin)."
    helped = (
        "Synthetic data helped" if promotion["promoted"] else "Synthetic data was not shown to help, so it is not used"
    )
    worth = promotion.get("worth")
    return f"{helped}: {promotion['reason']}.{_compare(arms)}{f' {worth}' if worth else ''}{seen}"


def _compare(arms: Mapping[str, Any]) -> str:
    for metric, unit in (("net_value_per_hour", "$ an hour of net value"), ("return", "of return")):
        pair = [arms.get(name, {}).get(metric) for name in (BASELINE, GATED)]
        if all(isinstance(p, Mapping) and p.get("mean") is not None for p in pair):
            base, gated = (p["mean"] for p in pair if p)
            return f" Trust-weighted earns {gated:.4g} {unit}, real-only {base:.4g} (difference {gated - base:+.4g})."
    return ""
