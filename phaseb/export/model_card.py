"""The card that travels with an exported policy: what it was made from, what it earned, and its limits."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from phaseb import __version__
from phaseb.episodes.tasks import short
from phaseb.pipeline.run_directory import read_decision
from phaseb.runtime.formatting import interval, number
from phaseb.runtime.storage import Store

CARD_FORMAT = 1
MEASURES = ("mpl", "error_rate", "energy_wh_per_unit", "net_value_per_hour", "return", "action_mse")
TRUST = ("roc_auc", "ece", "pass_rate", "report_model_fail_rate", "effective_contribution")
SECTIONS = ("environment", "valuation", "evaluation")
"""Config sections that an evaluation of the file starts from."""


def card_of(
    store: Store, arm: str, seed: int, interface: Mapping[str, Any], checks: Mapping[str, Any]
) -> dict[str, Any]:
    """All that is said of one policy of a run, as JSON; read from the run directory alone."""
    lineage, promotion = store.read_json("run.json"), read_decision(store)
    stages = lineage["stages"]
    summary = store.read_json("evaluation", "summary.json")
    told = summary["arms"][arm]
    config = yaml.safe_load(store.read_text("config.yaml"))
    return {
        "format": CARD_FORMAT,
        "phaseb": __version__,
        "arm": arm,
        "seed": seed,
        "interface": dict(interface),
        "check": dict(checks),
        "data": {
            "episodes": {k: stages["collect"]["metrics"].get(k) for k in ("num_train", "num_dev", "num_test")},
            "digests": {name: stage.get("outputs", {}) for name, stage in stages.items()},
            "config": lineage["config_digest"],
            "run_seed": lineage["seed"],
        },
        "metrics": {
            "where": summary["environment"],
            "episodes": summary["num_episodes"],
            "this_policy": {k: told["seeds"][str(seed)].get(k) for k in MEASURES},
            "all_seeds": {k: told["summary"].get(k) for k in MEASURES},
            "recorded": {k: stages["collect"]["metrics"].get(k) for k in ("mpl", "error_rate")},
        },
        "promotion": {k: promotion.get(k) for k in ("promoted", "rule", "reason", "method", "budget")},
        "trust": _metrics(stages, "trust", TRUST) | _metrics(stages, "judge", ("judge_auc",)),
        "limits": _limits(summary, stages, arm),
        "config": {name: config[name] for name in SECTIONS},
    }


def _metrics(stages: Mapping[str, Any], stage: str, names: Sequence[str]) -> dict[str, Any]:
    """Metrics of a stage; `generator/name` where it has one for each generator."""
    metrics = stages.get(stage, {}).get("metrics", {})
    found = {name: metrics[name] for name in names if name in metrics}
    for part, own in metrics.items():
        if isinstance(own, Mapping):
            found |= {f"{part}/{name}": own[name] for name in names if name in own}
    return found


def _limits(summary: Mapping[str, Any], stages: Mapping[str, Any], arm: str) -> list[str]:
    count = stages["collect"]["metrics"].get("num_train")
    said = [
        f"Trained offline on {count} episodes: outside of what they show, its actions are a guess.",
        "It is deterministic, keeps no memory but the stacked frames and its plans, and does not know when it is lost.",
        "It was not examined for safety. Keep the machine's own limits, and a person's stop, in place.",
    ]
    if summary["environment"] == "none":
        said.append("Never tried in an environment: its numbers are off-policy estimates.")
    else:
        said.append(f"Measured in {summary['environment']}, which is not the machine; expect another error rate there.")
    if arm != "real_only":
        said.append("Part of its training data was imagined by a world model and weighed by a trust gate.")
    return said


def card_text(card: Mapping[str, Any]) -> str:
    """The same for a person, in Markdown."""
    data, metrics, interface = card["data"], card["metrics"], card["interface"]
    lines = [
        f"# Policy `{card['arm']}`, seed {card['seed']}",
        "",
        f"Written by phaseb {card['phaseb']}. {card['promotion']['reason']}.",
        "",
        "## What it takes and gives",
        "",
        *(
            f"- input `{n}`: {_shape(s)} {'uint8' if n == 'frames' else 'float32'}"
            for n, s in interface["inputs"].items()
        ),
        *(f"- output `{n}`: {_shape(s)} float32, in the machine's units" for n, s in interface["outputs"].items()),
        "",
        "Frames are stacked newest first; at the start of an episode the first one is repeated.",
        *_control_lines(interface.get("control")),
        *_task_lines(interface.get("tasks", ())),
        "",
        "## What it earned",
        "",
        f"{metrics['episodes']} episodes in {metrics['where']}.",
        "",
        "| | this policy | its arm, over seeds | recorded data |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {number(metrics['this_policy'].get(name))} | {interval(metrics['all_seeds'].get(name))} | "
            f"{number(metrics['recorded'].get(name))} |"
            for name in MEASURES
        ),
        "",
        "## Trust in the synthetic data of its run",
        "",
        *(f"- {name}: {number(value)}" for name, value in card["trust"].items()),
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in card["limits"]),
        "",
        "## Where it comes from",
        "",
        f"- config {data['config'][:16]}, seed {data['run_seed']}",
        *(
            f"- {stage}: {', '.join(f'{k} {v[:16]}' for k, v in outputs.items())}"
            for stage, outputs in data["digests"].items()
        ),
        "",
        f"Both files act as phaseb does within {max(card['check']['difference'].values()):.1g} of half the "
        f"actions' range ({card['check']['checked_rows']} held-out observations).",
        "",
    ]
    return "\n".join(lines)


def _control_lines(control: Mapping[str, Any] | None) -> list[str]:
    """How a machine must play actions of `episodes.control_hz`."""
    if control is None:
        return []
    rows, recorded = control["rows"], f"{number(control['recorded_hz'])} Hz"
    played = {
        "repeat": f"send the same action {rows} times at {recorded}",
        "chunk": f"an action is {rows} of the machine's, one after another: send them at {recorded}",
    }[control["action"]]
    return ["", f"It decides {number(control['hz'])} times a second: {played}, then ask again."]


def _task_lines(tasks: Sequence[str]) -> list[str]:
    """How the state says the task."""
    if not tasks:
        return []
    named = ", ".join(f"`{short(task)}`" for task in tasks)
    return [
        "",
        f"The last {len(tasks)} numbers of `state` say the task: 1 for the episode's own, 0 for the others. Their "
        f"order: {named}.",
    ]


def _shape(shape: list[Any]) -> str:
    return f"({', '.join(map(str, shape))})"
