"""Every number of a run in one document, read from the run directory alone: `results.json`."""

from collections.abc import Mapping
from typing import Any

from phaseb.errors import DataError
from phaseb.report.attribution import read_worth
from phaseb.report.verdict import verdict
from phaseb.runtime.storage import Store

FOUNDING = {
    "std_ratio": "–",
    "std_ratio_pooled": "1.9, then 3.4",
    "range_ratio": "2.1",
    "variance_growth": "exploded",
    "lag_match": "–",
    "bounds_pass": "0/50",
    "rmse": "–",
    "judge_auc": "≈ 1.0",
    "judge_auc_noise": "–",
    "pass_rate": "0/50",
    "pass_rate_held_out": "–",
    "pass_rate_perturbed": "–",
    "report_model_fail_rate": "–",
    "roc_auc": "1.0",
    "val_accuracy": "100 %",
    "ece": "–",
    "trust_gap": "0.9985",
    "real_contribution": "99.94 %",
    "effective_contribution": "0.06 %",
    "action_mse": "0.178 → 0.171",
    "actor_loss": "−4.35 → −4.28",
}
"""What the founding report had for each number; the order is the order of the table."""

ARM_COLUMNS = ("mpl", "error_rate", "energy_wh_per_unit", "return", "net_value_per_hour", "action_mse")


def collect_results(store: Store) -> dict[str, Any]:
    """The results of a run: verdict, the synthetic data's numbers beside the founding report's, the arms.

    Raises:
        DataError: where a stage that it needs is missing.
    """
    lineage = store.read_json("run.json")
    stages = lineage["stages"]
    missing = [name for name in ("judge", "evaluate") if stages.get(name, {}).get("state") != "done"]
    if missing:
        raise DataError(f"{store.root} has no results yet: run `phaseb {missing[0]}` first")
    summary, judges = store.read_json("evaluation", "summary.json"), store.read_json("judges.json")
    promotion = store.read_json("promotion.json")
    numbers = _numbers(stages, judges, summary, promotion)
    arms = {name: arm["summary"] for name, arm in summary["arms"].items()}
    held_out = store.read_json("evaluation", "held_out.json") if store.exists("evaluation", "held_out.json") else None
    silent = summary["environment"] == "none" and not summary.get("values_known", True)
    return {
        "verdict": verdict(arms, promotion, summary["settings"], judges, held_out if silent else None),
        "shipped": promotion["shipped"],
        "synthetic": [{"name": k, "value": numbers.get(k), "founding": v} for k, v in FOUNDING.items()],
        "numbers": numbers,
        "arms": arms,
        "arm_columns": [c for c in ARM_COLUMNS if any(_known(arm.get(c)) for arm in arms.values())],
        "arms_title": _title(summary, promotion),
        "tasks": {name: arm["tasks"] for name, arm in summary["arms"].items() if "tasks" in arm},
        "held_out": held_out,
        "evaluation": {k: v for k, v in summary.items() if k != "arms"},
        "generators": {name: _of_generator(name, stages, found) for name, found in judges.items()},
        "judges": judges,
        "choice": store.read_json("dynamics", "chosen.json") if "choice" in stages else None,
        "closed_loop": store.read_json("closed_loop.json") if "closed_loop" in stages else None,
        "promotion": promotion,
        "notes": _notes(store),
        "worth": read_worth(store),
        "stages": {n: _told(s) for n, s in stages.items()},
        "config_digest": lineage["config_digest"],
        "seed": lineage["seed"],
        "version": lineage["version"],
    }


def _notes(store: Store) -> list[str]:
    """What was chosen to fit the episodes, and other remarks that the run made before it trained."""
    return list(store.read_json("preflight.json")["lines"]) if store.exists("preflight.json") else []


def _told(stage: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a stage; its inputs by name, its outputs by digest."""
    said = {key: stage.get(key) for key in ("seconds", "metrics", "ended", "version", "outputs")}
    return said | {"inputs": list(stage.get("inputs") or ())}


def _numbers(
    stages: Mapping[str, Any], judges: Mapping[str, Any], summary: Mapping[str, Any], promotion: Mapping[str, Any]
) -> dict[str, Any]:
    """The gate's numbers, the first stored generator's, and those of the arms."""
    found = dict(stages["trust"]["metrics"])
    if stored := next((name for name, judged in judges.items() if "numbers" in judged), None):
        found |= _of_generator(stored, stages, judges[stored])
    numbers = {name: found[name] for name in FOUNDING if name in found}
    return numbers | _arm_numbers(summary["arms"], promotion)


def _arm_numbers(arms: Mapping[str, Any], promotion: Mapping[str, Any]) -> dict[str, Any]:
    """Of the candidate, and of the control that it is held against."""
    numbers: dict[str, Any] = {}
    pair = [arms.get(str(promotion.get(role)), {}).get("summary", {}) for role in ("control", "candidate")]
    for name in ("action_mse", "actor_loss"):
        values = [summary.get(name) for summary in pair]
        if all(_known(v) for v in values):
            numbers[name] = " → ".join(f"{v['mean']:.3f}" for v in values if v)
    gated = pair[1].get("effective_contribution")
    if _known(gated):
        numbers["effective_contribution"] = gated["mean"]
        numbers["real_contribution"] = 1 - gated["mean"]
    return numbers


def _of_generator(name: str, stages: Mapping[str, Any], judges: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one generator: of its stored rollouts where it has any, and under `branched` of branched ones."""
    found: dict[str, Any] = dict(stages[f"dynamics/{name}"]["metrics"]) | {"digest": judges["digest"]}
    found |= stages["trust"]["metrics"].get(name, {})
    found |= judges.get("numbers", {})
    found |= {"closed_loop": stages["closed_loop"]["metrics"].get(name)} if "closed_loop" in stages else {}
    if "branched" in judges:
        found["branched"] = judges["branched"]["numbers"] | {"horizon": judges["branched"]["horizon"]}
    return found


def _known(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("mean") is not None


def _title(summary: Mapping[str, Any], promotion: Mapping[str, Any]) -> str:
    seeds, shared = len(summary["seeds"]), summary["shared_data"]
    where = f"{summary['num_episodes']} episodes a seed in {summary['environment']}"
    if summary["environment"] == "none":
        where = "estimated by off-policy evaluation (no environment)"
        if promotion.get("method") == "model":
            where = (
                f"estimated by returns of {promotion['model_returns']['horizon']} steps in generators (no environment)"
            )
        if not summary.get("values_known", True):
            where = "compared by held-out actions alone (no environment, no rewards that differ)"
    data = "data, encoder, world model and gate shared between seeds" if shared else "everything redrawn for each seed"
    return f"arms, {seeds} seeds ({data}), {where}; 95 % intervals over seeds"
