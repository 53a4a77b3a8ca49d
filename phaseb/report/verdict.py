"""A few sentences that say whether the synthetic data helped, by how much, and how real it looks."""

from collections.abc import Mapping
from typing import Any

UNITS = (("net_value_per_hour", "$ an hour of net value"), ("return", "of return"))


def verdict(
    arms: Mapping[str, Any],
    promotion: Mapping[str, Any],
    settings: Mapping[str, Any],
    judges: Mapping[str, Any],
    held_out: Mapping[str, Any] | None = None,
) -> str:
    """The verdict on a run.

    Args:
        arms: for each arm the intervals of its metrics.
        promotion: the decision, content of promotion.json.
        settings: for each arm its generator and kind of rollouts.
        judges: by generator, content of judges.json.
        held_out: content of held_out.json where nothing but held-out actions was measured.
    """
    told = [
        f"{_claim(promotion)}: {_reasons(promotion)}.",
        _compare(arms, promotion) if held_out is None else _copied(promotion, held_out),
        promotion.get("worth") or "",
        _realism(settings.get(promotion["shipped"], {}), judges),
    ]
    return " ".join(part for part in told if part)


def judge_auc(judges: Mapping[str, Any], generator: str | None, rollouts: str) -> float | None:
    """How well the worst fresh judge tells the rollouts of a generator from recorded ones, at the way they are used.

    None where that generator was not judged in that way.
    """
    found = judges.get(generator, {}) if generator else {}
    numbers = (found.get("branched", {}) if rollouts == "branched" else found).get("numbers", {})
    auc = numbers.get("judge_auc")
    return None if auc is None else float(auc)


def _claim(promotion: Mapping[str, Any]) -> str:
    if promotion["helped"]:
        return "Synthetic data helped" + " to copy held-out actions" * (promotion.get("method") == "held_out")
    if promotion.get("method") == "none" and not promotion.get("candidate"):
        return "No policy with synthetic data was compared"
    if promotion["promoted"]:
        return "An arm with synthetic data is shipped, but the data were not shown to be the reason"
    return "Synthetic data was not shown to help, so it is not used"


def _reasons(promotion: Mapping[str, Any]) -> str:
    reason, placebo = promotion["reason"], promotion.get("placebo_reason")
    if promotion["promoted"] and not placebo:
        placebo = "it was compared with no placebo"
    return f"{reason}; {placebo}" if placebo else str(reason)


def _compare(arms: Mapping[str, Any], promotion: Mapping[str, Any]) -> str:
    """What the candidate, the control that earned most in evaluation, and the placebo earn there."""
    candidate, control, placebo = (str(promotion.get(role) or "") for role in ("candidate", "control", "placebo"))
    for metric, unit in UNITS:
        means = {
            name: arm[metric]["mean"]
            for name, arm in arms.items()
            if isinstance(arm.get(metric), Mapping) and arm[metric].get("mean") is not None
        }
        known = [name for name in (control, *promotion.get("controls", ())) if name in means]
        if candidate in means and known:
            control = max(known, key=lambda name: means[name])
            gain = means[candidate] - means[control]
            beside = f", its placebo {means[placebo]:.4g}" if placebo in means else ""
            return (
                f"In evaluation {candidate} earns {means[candidate]:.4g} {unit}, {control} {means[control]:.4g} "
                f"(difference {gain:+.4g}){beside}."
            )
    return ""


def _copied(promotion: Mapping[str, Any], held_out: Mapping[str, Any]) -> str:
    """How far policies are from held-out actions, where no return was measured."""
    names = dict.fromkeys(str(promotion.get(role) or "") for role in ("shipped", "candidate", "control", "placebo"))
    errors = {name: held_out["arms"][name]["error"]["mean"] for name in names if name in held_out["arms"]}
    known = {name: error for name, error in errors.items() if error is not None}
    if not known:
        return "No return was measured, and no action differs."
    told = ", ".join(f"{name} misses the recorded action by {error:.3g} σ" for name, error in known.items())
    floor = held_out["mean_action"]["mean"]
    return (
        f"No return was measured: in {held_out['num_episodes']} held-out episodes {told} (the mean action by "
        f"{floor:.3g} σ)."
    )


def _realism(shipped: Mapping[str, Any], judges: Mapping[str, Any]) -> str:
    """About the rollouts that the shipped arm used, or nothing."""
    generator, rollouts = shipped.get("generator"), str(shipped.get("rollouts", "none"))
    auc = judge_auc(judges, generator, rollouts)
    if auc is None:
        return ""
    return (
        f"The worst fresh judge tells {rollouts} rollouts of {generator} from recorded episodes at AUC {auc:.2f} "
        "(0.5 is chance)."
    )
