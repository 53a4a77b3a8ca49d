"""Two runs side by side: verdicts, arms, numbers, curves, films, and what differs in their configs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite, nan
from typing import Any

import yaml

from phaseb.report.animation import films
from phaseb.report.html import Figure, Film, cinema, document, gallery, paragraph, section, table
from phaseb.report.run_page import HEADINGS, MEANINGS, verdict_style
from phaseb.report.svg import BLUE, GREY, ORANGE, Chart
from phaseb.runtime.formatting import interval, number, signed
from phaseb.runtime.storage import Store

COLORS = (BLUE, ORANGE)
ELSEWHERE = ("run.dir", "report.")
"""Settings that say where a run lies and how it is shown, not what it is."""


@dataclass(frozen=True)
class RunSummary:
    """A finished run: its name on the page, its results, its whole config by dotted path."""

    name: str
    results: Mapping[str, Any]
    config: Mapping[str, Any]
    store: Store

    @classmethod
    def read(cls, name: str, store: Store, results: Mapping[str, Any]) -> "RunSummary":
        """The run in a folder, with results that were collected from it."""
        config = yaml.safe_load(store.read_text("config.yaml"))
        return cls(name, results, dict(_flat(config)), store)


def compare(first: RunSummary, second: RunSummary) -> dict[str, Any]:
    """What the page says, as plain data.

    Returns:
        `runs` (verdict and shipped arm of each), `config` (dotted path: both values, where they differ), `arms` and
        `numbers` (name: both values and, where both are known, the difference `second - first`). Of an arm's measure
        `apart` says whether the 95 % intervals over seeds do not overlap.
    """
    arms = [a for a in first.results["arms"] if a in second.results["arms"]]
    columns = [c for c in first.results["arm_columns"] if c in second.results["arm_columns"]]
    pair = (first, second)
    return {
        "runs": [
            {
                "name": run.name,
                "verdict": run.results["verdict"],
                "shipped": run.results["shipped"],
                "helped": run.results["promotion"]["helped"],
                "seed": run.results["seed"],
                "version": run.results["version"],
            }
            for run in pair
        ],
        "config": {path: [run.config.get(path) for run in pair] for path in _differing(first.config, second.config)},
        "arms": {
            arm: {c: _measured(*(run.results["arms"][arm].get(c) for run in pair)) for c in columns} for arm in arms
        },
        "numbers": {
            row["name"]: _plain(*(run.results["numbers"].get(row["name"]) for run in pair))
            for row in first.results["synthetic"]
        },
    }


def comparison_page(first: RunSummary, second: RunSummary, compared: Mapping[str, Any]) -> str:
    """The page of `compare`'s findings."""
    pair = (first, second)
    verdicts = [
        f"<h3>{escape(run['name'])}</h3>" + paragraph(run["verdict"], verdict_style(run["helped"]))
        for run in compared["runs"]
    ]
    return document(
        f"{first.name} and {second.name}",
        [
            *verdicts,
            section(
                "Arms",
                paragraph("mean and 95 % interval over seeds; apart: the two intervals do not overlap"),
                _arms(compared, pair),
            ),
            section("In the cell", cinema(_films(pair))),
            section("Synthetic data", _numbers(compared, pair)),
            section("Figures", gallery(_figures(pair))),
            section("What differs in their configs", _config(compared, pair)),
        ],
    )


def _arms(compared: Mapping[str, Any], pair: Sequence[RunSummary]) -> str:
    rows = [
        [
            f"{arm}: {HEADINGS.get(name, name)}",
            interval(both["values"][0]),
            interval(both["values"][1]),
            signed(both["difference"]),
            {True: "yes", False: "no", None: "–"}[both["apart"]],
        ]
        for arm, measures in compared["arms"].items()
        for name, both in measures.items()
    ]
    return table(["", *(run.name for run in pair), "difference", "apart"], rows) if rows else ""


def _numbers(compared: Mapping[str, Any], pair: Sequence[RunSummary]) -> str:
    founding = {row["name"]: row["founding"] for row in pair[0].results["synthetic"]}
    rows = [
        [name, *map(number, both["values"]), signed(both["difference"]), founding[name], MEANINGS.get(name, "")]
        for name, both in compared["numbers"].items()
    ]
    return table(["number", *(run.name for run in pair), "difference", "founding report", "what it says"], rows, True)


def _config(compared: Mapping[str, Any], pair: Sequence[RunSummary]) -> str:
    if not compared["config"]:
        return paragraph("nothing")
    rows = [[path, *(str(v) for v in values)] for path, values in compared["config"].items()]
    return table(["setting", *(run.name for run in pair)], rows)


def _films(pair: Sequence[RunSummary]) -> list[Film]:
    """Films of the same arm next to each other."""
    of_run = [{film.title: film for film in films(run.store)} for run in pair]
    titles = dict.fromkeys(title for found in of_run for title in found)
    return [
        Film(f"{run.name}: {title}", film.uri, film.num_frames, film.seconds)
        for title in titles
        for run, found in zip(pair, of_run, strict=True)
        if (film := found.get(title))
    ]


def _figures(pair: Sequence[RunSummary]) -> list[Figure]:
    return [f for f in (_arm_figure(pair), _drift_figure(pair), _ladder_figure(pair)) if f is not None]


def _arm_figure(pair: Sequence[RunSummary]) -> Figure | None:
    columns = [set(run.results["arm_columns"]) for run in pair]
    metric = next((m for m in ("net_value_per_hour", "return") if all(m in c for c in columns)), None)
    if metric is None:
        return None
    arms = [a for a in pair[0].results["arms"] if a in pair[1].results["arms"]]
    bars = [(arm, i, run.results["arms"][arm][metric]) for arm in arms for i, run in enumerate(pair)]
    mean, low, high = ([_float(b[key]) for _, _, b in bars] for key in ("mean", "low", "high"))
    chart = Chart(
        "arms of both runs",
        "",
        HEADINGS[metric],
        y_from_zero=True,
        categories=[arm if i == 0 else "" for arm, i, _ in bars],
    )
    chart.bars(mean, low, high, [COLORS[i] for _, i, _ in bars])
    legend = f"Of each pair of bars the left (blue) is {pair[0].name}, the right (orange) {pair[1].name}."
    return Figure("What the policies earn", chart.svg(), legend)


def _drift_figure(pair: Sequence[RunSummary]) -> Figure | None:
    chart, drawn = Chart("open-loop error", "step of the rollout", "RMSE, σ", y_from_zero=True), False
    for run, color in zip(pair, COLORS, strict=True):
        rmse = _stored(run).get("rmse_by_step") or []
        if rmse:
            chart.line(range(1, len(rmse) + 1), [_float(v) for v in rmse], run.name, color)
            drawn = True
    return Figure("How far rollouts drift", chart.svg(), "On each run's own sealed test.") if drawn else None


def _stored(run: RunSummary) -> Mapping[str, Any]:
    """The judges of the first generator with stored rollouts."""
    return next((found for found in run.results["judges"].values() if "ladder" in found), {})


def _ladder_figure(pair: Sequence[RunSummary]) -> Figure | None:
    ladders = [_stored(run).get("ladder", {}).get("rungs", {}) for run in pair]
    names = [name for name in ladders[0] if name in ladders[1]]
    if not names:
        return None
    chart = Chart("judges of both runs", "rung", "AUC of the worst judge", categories=names)
    for run, rungs, color in zip(pair, ladders, COLORS, strict=True):
        values = [_float(rungs[name]["levels"][0]["judge_auc"]) for name in names]
        chart.line(range(len(names)), values, run.name, color)
    chart.level(0.5, "chance", GREY)
    return Figure("Can a fresh judge tell?", chart.svg(), "Without noise; 0.5 is chance.")


def _measured(a: Any, b: Any) -> dict[str, Any]:
    both = [v if isinstance(v, Mapping) and v.get("mean") is not None else None for v in (a, b)]
    if both[0] is None or both[1] is None:
        return {"values": [a, b], "difference": None, "apart": None}
    ends = [[_float(v[key]) for key in ("low", "high")] for v in both if v]
    known = all(isfinite(x) for pair in ends for x in pair)
    apart = (ends[0][1] < ends[1][0] or ends[1][1] < ends[0][0]) if known else None
    return {"values": [a, b], "difference": both[1]["mean"] - both[0]["mean"], "apart": apart}


def _plain(a: Any, b: Any) -> dict[str, Any]:
    known = all(isinstance(v, (int, float)) and v == v for v in (a, b))
    return {"values": [a, b], "difference": b - a if known else None}


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    paths = [path for path in {**a, **b} if a.get(path) != b.get(path)]
    return [path for path in paths if not path.startswith(ELSEWHERE)]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _float(value: Any) -> float:
    return nan if value is None else float(value)
