"""The page of a search: what won and what that is worth, how it was found, what mattered, and what it cost.

Read from the study's folder alone (`study.json`, `trials/*.json`, and `result.json` once it has ended), so it can be
written while the search goes on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phaseb.config.tuning import Metric, StudyConfig
from phaseb.errors import DataError
from phaseb.report.html import document, gallery, paragraph, section, table
from phaseb.report.study_figures import short, study_figures
from phaseb.runtime.formatting import duration, number
from phaseb.runtime.storage import Store
from phaseb.trials import Record, Records

STATES = ("done", "stopped", "failed", "running")


@dataclass(frozen=True)
class Study:
    """A study's settings, its trials in order, and its result (empty while it goes on)."""

    name: str
    config: StudyConfig
    trials: list[Record]
    result: Mapping[str, Any]

    @classmethod
    def read(cls, store: Store) -> "Study":
        """The study in a folder.

        Raises:
            DataError: where what lies there is no study of this version.
        """
        tree = store.read_json("study.json")
        known = {name: value for name, value in tree.items() if name in StudyConfig.model_fields}
        try:
            config = StudyConfig.model_validate(known)
        except ValueError as error:
            raise DataError(
                f"{store.root} is not a study of this version: {' '.join(str(error).split())[:200]}"
            ) from error
        result = store.read_json("result.json") if store.exists("result.json") else {}
        name = config.name or store.root.rpartition("/")[2]
        return cls(name, config, Records(store.folder("trials")).all(), result)

    @property
    def metric(self) -> Metric:
        return self.config.metrics[0]

    @property
    def searched(self) -> list[Record]:
        return [t for t in self.trials if t.phase == "search"]


def study_page(study: Study) -> str:
    """The whole page."""
    return document(f"Study {study.name}", [
        paragraph(_verdict(study), "verdict" if study.result.get("best") else "verdict kept"),
        section("The winner", _winner(study)),
        section("Cost so far", _cost(study)),
        section("Figures", gallery(study_figures(study.config, study.searched, study.result))),
        section("Trials", _trials(study)),
    ])  # fmt: skip


def study_summary(study: Study) -> dict[str, Any]:
    """What the page says, as plain data."""
    return {
        "name": study.name, "verdict": _verdict(study), "metric": study.metric.name, "trials": _counts(study), "result": dict(study.result),
        "cost": {"seconds": _seconds(study.trials), "cpu_hours": _cpu_hours(study),
                 "seconds_measuring": sum(t.last.get("seconds_measuring", 0.0) for t in study.trials)},
    }  # fmt: skip


def _verdict(study: Study) -> str:
    result, name = study.result, study.metric.name
    if not result:
        counts = _counts(study)
        return f"Still searching: {counts['done'] + counts['stopped']} trials ended, {counts['running']} in progress."
    told = f"{name} {number(result['confirmed'] if result['confirmed'] is not None else result['searched'])}"
    if not result["best"]:
        return f"Nothing beat the base config's own values ({told})."
    base = f", the base config's own values have {number(result['base'])}" if result["base"] is not None else ""
    fresh = "on fresh seeds" if result["confirmed"] is not None else "in the search, not run again on fresh seeds"
    return f"A better point was found: {told} {fresh}{base}. best.yaml has it."


def _winner(study: Study) -> str:
    result = study.result
    if not result:
        return ""
    values = [
        ("in the search", result["searched"], "the best of many is partly luck"),
        ("on fresh seeds", result["confirmed"], "the same point again: what to expect of it"),
        ("base config, same fresh seeds", result["base"], "what it has to beat"),
        ("sealed test split", result["sealed"], "seen by these runs alone; the number to report"),
    ]
    rows = [[name, number(value), says] for name, value, says in values if value is not None]
    point = [[path, number(value)] for path, value in result["best"].items()]
    found = table(["", study.metric.name, ""], rows, told=True)
    return found + (table(["setting", "value"], point) if point else "")


def _cost(study: Study) -> str:
    counts = _counts(study)
    trained, measured = _seconds(study.trials), sum(t.last.get("seconds_measuring", 0.0) for t in study.trials)
    longest = max((t.steps for t in study.searched), default=0)
    whole = longest * sum(t.state != "failed" for t in study.searched)
    spent = sum(t.steps for t in study.searched if t.state != "failed")
    rows = [
        ["trials", ", ".join(f"{n} {state}" for state, n in counts.items() if n)],
        ["time in trials, all together", duration(trained)],
        ["CPU hours reserved", number(_cpu_hours(study))],
        ["share of it spent measuring the real metric", f"{measured / trained:.1%}" if trained else "–"],
        ["optimiser steps, of what trials without early stopping would take", f"{spent / whole:.0%}" if whole else "–"],
    ]
    if study.result.get("ended_by"):
        rows.append(["ended by", str(study.result["ended_by"])])
    return table(["", ""], rows)


def _trials(study: Study) -> str:
    metrics, settings = [m.name for m in study.config.metrics], list(study.config.space)
    sign = 1 if study.metric.mode == "min" else -1

    def order(trial: Record) -> tuple[float, float]:
        value = trial.last.get(study.metric.name)
        return (-trial.steps, math.inf if value is None else sign * value)

    rows = [
        [str(t.number + 1), t.phase, t.state, number(t.steps), duration(t.seconds), str(t.seed),
         *(number(t.last.get(m)) for m in metrics), *(number(t.point.get(s)) for s in settings), t.reason]
        for t in sorted(study.trials, key=order)
    ]  # fmt: skip
    header = ["trial", "phase", "state", "steps", "time", "seed", *metrics, *map(short, settings), "reason"]
    return paragraph("those that got furthest first, the best of them at the top") + table(header, rows, told=True)


def _counts(study: Study) -> dict[str, int]:
    return {state: sum(t.state == state for t in study.searched) for state in STATES}


def _seconds(trials: Sequence[Record]) -> float:
    return sum(t.seconds for t in trials)


def _cpu_hours(study: Study) -> float:
    return _seconds(study.trials) * study.config.resources.cpus / 3600
