"""The figures of a search."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from phaseb.config.tuning import Metric, Parameter, StudyConfig
from phaseb.report.html import Figure
from phaseb.report.parallel import Axis, parallel_coordinates
from phaseb.report.svg import BLUE, GREEN, GREY, ORANGE, RED, Chart
from phaseb.runtime.formatting import number
from phaseb.trials import Record, pareto_front

COLORS = {"done": GREEN, "stopped": ORANGE, "failed": RED, "running": BLUE}
MAX_CURVES = 60


def study_figures(config: StudyConfig, trials: Sequence[Record], result: Mapping[str, Any]) -> list[Figure]:
    """Those that there is something to draw for: a trial that was measured at all."""
    metric = config.metrics[0]
    measured = [t for t in trials if value(t, metric) is not None]
    if not measured:
        return []
    drawn = [
        _history(metric, measured), _curves(metric, measured), _importance(result.get("importance") or {}),
        _front(config.metrics, measured), _spent(trials), _parallel(config, measured),
    ]  # fmt: skip
    return [figure for figure in drawn if figure is not None]


def value(trial: Record, metric: Metric) -> float | None:
    """What a trial came to; None where it was not measured or is not finite."""
    found = trial.last.get(metric.name)
    return found if found is not None and isfinite(found) else None


def _label(trial: Record, metric: Metric) -> str:
    """What a trial says when it is pointed at."""
    point = ", ".join(f"{short(name)} {number(at)}" for name, at in trial.point.items())
    told = f"{metric.name} {number(value(trial, metric))}"
    return f"trial {trial.number + 1} ({trial.state}, {trial.steps} steps): {told}; {point}"


def short(name: str) -> str:
    """A dotted name's last two parts."""
    return ".".join(name.split(".")[-2:])


def _history(metric: Metric, trials: Sequence[Record]) -> Figure:
    """Only trials that got as far as the furthest count for the best: an early value is no result."""
    chart = Chart("history", "trial", metric.name)
    for state in ("done", "stopped", "running"):
        some = [t for t in trials if t.state == state]
        if some:
            chart.points([t.number + 1 for t in some], [_known(value(t, metric)) for t in some], state, COLORS[state],
                         [_label(t, metric) for t in some], radius=3.5)  # fmt: skip
    furthest = max(t.steps for t in trials)
    best, x, y = None, [], []
    for trial in trials:
        found = value(trial, metric)
        if trial.steps == furthest and found is not None:
            best = found if best is None else (min if metric.mode == "min" else max)(best, found)
            x.append(trial.number + 1)
            y.append(best)
    chart.line(x, y, "best so far, of trials that ran to the end", GREY)
    way = "lower" if metric.mode == "min" else "higher"
    return Figure(
        "History of the best", chart.svg(), f"{metric.name} of every trial at its last report; {way} is better."
    )


def _curves(metric: Metric, trials: Sequence[Record]) -> Figure:
    chart = Chart("course of the trials", "optimiser step", metric.name)
    for trial in trials[-MAX_CURVES:]:
        rows = [r for r in trial.rows if isfinite(r.get(metric.name, float("nan")))]
        chart.line([r["steps"] for r in rows], [r[metric.name] for r in rows], trial.state,
                   COLORS.get(trial.state, GREY), dots=len(trials) <= 20)  # fmt: skip
    return Figure(
        "What every trial looked like on its way", chart.svg(), "Stopped trials end where the scheduler ended them."
    )


def _importance(importance: Mapping[str, float]) -> Figure | None:
    if not importance:
        return None
    ordered = sorted(importance, key=lambda name: -importance[name])
    chart = Chart(
        "importance", "", "share of the variance explained", y_from_zero=True, categories=[short(n) for n in ordered]
    )
    nothing = [float("nan")] * len(ordered)
    chart.bars([importance[n] for n in ordered], nothing, nothing, [BLUE] * len(ordered))
    return Figure(
        "What mattered",
        chart.svg(),
        "Importance of each setting over the trials of the search, as Optuna works it out.",
    )


def _front(metrics: Sequence[Metric], trials: Sequence[Record]) -> Figure | None:
    if len(metrics) < 2:
        return None
    first, second = shown = list(metrics[:2])
    done = [t for t in trials if t.state == "done" and all(value(t, m) is not None for m in shown)]
    chart = Chart("front", first.name, second.name)
    chart.points([t.last[first.name] for t in done], [t.last[second.name] for t in done], "trials", ORANGE,
                 [_label(t, first) for t in done], radius=3.5)  # fmt: skip
    front = sorted((t.last[first.name], t.last[second.name]) for t in pareto_front(done, shown))
    chart.line([p[0] for p in front], [p[1] for p in front], "nothing beats these in both", GREEN)
    return Figure("Pareto front", chart.svg(), f"{first.name} ({first.mode}) against {second.name} ({second.mode}).")


def _spent(trials: Sequence[Record]) -> Figure:
    chart = Chart("cost", "trial", "seconds in trials, all together", y_from_zero=True)
    total, y = 0.0, []
    for trial in trials:
        total += trial.seconds
        y.append(total)
    chart.line([t.number + 1 for t in trials], y, "all trials so far", BLUE)
    return Figure(
        "What it cost",
        chart.svg(),
        "A steep piece is a trial that ran to the end; a flat one was stopped early or failed.",
    )


def _parallel(config: StudyConfig, trials: Sequence[Record]) -> Figure:
    metric = config.metrics[0]
    sign = 1 if metric.mode == "min" else -1
    points = [{**t.point, metric.name: value(t, metric)} for t in trials]
    axes = [_axis(name, parameter, points) for name, parameter in config.space.items()]
    axes.append(Axis(metric.name, [p[metric.name] for p in points]))
    order = sorted(range(len(trials)), key=lambda i: (trials[i].steps, -sign * _known(value(trials[i], metric))))
    svg = parallel_coordinates(axes, points, order, [_label(t, metric) for t in trials])
    return Figure(
        "Parallel coordinates",
        svg,
        "A line a trial, dark is good; a setting that a trial does not have is left out of its line.",
        wide=True,
    )


def _axis(name: str, parameter: Parameter, points: Sequence[Mapping[str, Any]]) -> Axis:
    values = [p.get(name) for p in points]
    if parameter.choice is not None:
        return Axis(name, values, categories=list(parameter.choice))
    return Axis(name, values, by_ratio=parameter.kind == "loguniform" or parameter.log)


def _known(value: float | None) -> float:
    return float("nan") if value is None else value
