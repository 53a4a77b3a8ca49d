"""The page of a run: the verdict first, then what was measured, then the pictures, then where it all came from."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from phaseb.report.attribution import worth_section
from phaseb.report.generators import choice_section, generators_section
from phaseb.report.html import Figure, Film, cinema, document, gallery, paragraph, section, table
from phaseb.runtime.formatting import duration, interval, number

MEANINGS = {
    "std_ratio": "spread of a rollout over time, synthetic / real; 1 is alike, 0 stands still",
    "std_ratio_pooled": "the same, as the founding report pooled it; 1 is alike",
    "range_ratio": "range of each latent, synthetic / real; 1 is alike",
    "variance_growth": "spread at the end over spread at the start, synthetic / real; above 1 explodes, below collapses",
    "lag_match": "how far changes over 1 to 10 steps are from real ones (log ratio); 0 is alike",
    "bounds_pass": "share of rollouts within the real episodes' bounds: the report's filter",
    "rmse": "error of the last step of a rollout from held-out starts, in standard deviations",
    "judge_auc": "the worst fresh judge tells synthetic from real; 0.5 is a coin, 1 always",
    "judge_auc_noise": "the same with noise on both sides, which hides fingerprints but not mistakes",
    "pass_rate": "share of rollouts under recorded actions that the gate trusts as much as held-out real episodes",
    "pass_rate_held_out": "the same from starts that nothing was trained on",
    "pass_rate_perturbed": "the same under actions that were altered: nobody's answers, which the gate notices",
    "report_model_fail_rate": "share of rollouts of the report's own model that the gate turns away; 1 is best",
    "roc_auc": "the gate tells real episodes from bad ones that it was not trained on",
    "val_accuracy": "the same as a share of right answers",
    "ece": "how far its probabilities are from frequencies; 0 is calibrated",
    "trust_gap": "mean trust of real less mean trust of synthetic episodes",
    "real_contribution": "share of the training weight that is real",
    "effective_contribution": "share of the training weight that is synthetic and trusted",
    "action_mse": "squared distance from the operators' actions in their own σ, control → candidate; reported, never a goal",
    "actor_loss": "at the end of training, control → candidate",
}
"""What the numbers say, in words; the definitions are in the code that computes them."""

HEADINGS = {
    "mpl": "MPL (good units / h)",
    "error_rate": "error rate",
    "energy_wh_per_unit": "energy (Wh / good unit)",
    "return": "return",
    "net_value_per_hour": "net value ($ / h)",
    "action_mse": "action MSE",
}


MOST_DIMENSIONS = 32
"""Action dimensions that the table of held-out actions has at most."""


def render(title: str, results: Mapping[str, Any], figures: Sequence[Figure], films: Sequence[Film]) -> str:
    """The whole page."""
    return document(
        title,
        [
            paragraph(results["verdict"], verdict_style(results["promotion"]["helped"])),
            *([section("Fitted to these episodes", *map(paragraph, results["notes"]))] if results.get("notes") else []),
            section("Arms", paragraph(results["arms_title"]), arms_table(results)),
            tasks_section(results.get("tasks"), results["arm_columns"]),
            held_out_section(results.get("held_out")),
            section("In the cell", cinema(films)),
            section("Synthetic data, beside the founding report", _numbers(results)),
            choice_section(results.get("choice")),
            generators_section(results.get("closed_loop")),
            section("Figures", gallery(figures)),
            worth_section(results.get("worth")),
            section("Lineage", lineage(results)),
        ],
    )


def verdict_style(helped: bool) -> str:
    """The class of a verdict's paragraph: marked where synthetic data was shown to help."""
    return "verdict" if helped else "verdict kept"


def arms_table(results: Mapping[str, Any]) -> str:
    """A column an arm; first what it learned from, then a row a measure."""
    columns, arms, settings = results["arm_columns"], results["arms"], results["evaluation"]["settings"]
    rows = [["learner", *(settings[arm]["learner"] for arm in arms)], ["data", *(_data(settings[arm]) for arm in arms)]]
    rows += [[HEADINGS.get(c, c), *(interval(arm.get(c)) for arm in arms.values())] for c in columns]
    return table(["", *arms], rows)


def tasks_section(tasks: Mapping[str, Any] | None, columns: Sequence[str]) -> str:
    """A row a task and measure, a column an arm; "" where there are not several tasks."""
    if not tasks:
        return ""
    first = next(iter(tasks.values()))
    rows = []
    for task in first:
        rows.append([task, "episodes, all seeds", *(str(arm[task]["num_episodes"]) for arm in tasks.values())])
        for column in [name for name in columns if any(name in arm[task] for arm in tasks.values())]:
            rows.append(
                ["", HEADINGS.get(column, column), *(interval(arm[task].get(column)) for arm in tasks.values())]
            )
    return section("By task", table(["task", "", *tasks], rows))


def held_out_section(held_out: Mapping[str, Any] | None) -> str:
    """The distance of each arm from recorded actions in the sealed test, by dimension; "" where it was not measured."""
    if not held_out or not held_out["arms"]:
        return ""
    arms, control = held_out["arms"], held_out["control"]
    rows = [["all", *(interval(arm["error"]) for arm in arms.values())]]
    others = [arm.get("difference") for arm in arms.values()]
    if any(others):
        rows.append([f"less {control}", *(interval(one) for one in others)])
    for i in range(min(MOST_DIMENSIONS, len(next(iter(arms.values()))["by_dimension"]))):
        rows.append([f"action {i}", *(interval(arm["by_dimension"][i]) for arm in arms.values())])
    for task, own in (held_out.get("tasks") or {}).items():
        errors = (interval(own["arms"].get(arm)) for arm in arms)
        rows.append([f"{task} ({own['num_episodes']} episodes)", *errors])
    told = (
        f"Root mean squared distance from the recorded actions in {held_out['num_episodes']} episodes of the sealed "
        f"test, in recorded standard deviations; 95 % intervals over episodes. The mean recorded action has "
        f"{interval(held_out['mean_action'])}."
    )
    return section("Held-out actions", paragraph(told), table(["action", *arms], rows))


def _data(settings: Mapping[str, Any]) -> str:
    if settings["rollouts"] == "none":
        return "recorded"
    if settings["generator"] is None:
        return "recorded: no generator serves"
    if settings["placebo_of"]:
        return f"recorded, {settings['share']:.0%} drawn again"
    return f"≤ {settings['share']:.0%} {settings['rollouts']} rollouts of {settings['generator']}, {settings['weight']}"


def lineage(results: Mapping[str, Any]) -> str:
    """Which stage made what, out of what, when and by which version."""
    stages = results["stages"]
    flow = "".join(f"<li>{escape(name)}</li>" for name in stages)
    rows = [
        [
            name,
            ", ".join(stage.get("inputs") or ()) or "–",
            _digests(stage.get("outputs") or {}),
            "–" if stage.get("seconds") is None else duration(stage["seconds"]),
            str(stage.get("ended") or "–"),
            str(stage.get("version") or "–"),
        ]
        for name, stage in stages.items()
    ]
    told = f"seed {results['seed']}, config {results['config_digest'][:12]}, phaseb {results['version']}"
    header = ["stage", "made from", "digests of what it made", "time", "ended", "version"]
    return f'{paragraph(told)}<ol class="flow">{flow}</ol>{table(header, rows)}'


def _digests(outputs: Mapping[str, str]) -> str:
    return "  ".join(f"{name} {digest[:8]}" for name, digest in outputs.items()) or "–"


def _numbers(results: Mapping[str, Any]) -> str:
    rows = [
        [row["name"], number(row["value"]), row["founding"], MEANINGS.get(row["name"], "")]
        for row in results["synthetic"]
    ]
    return table(["number", "this run", "founding report", "what it says"], rows, told=True)
