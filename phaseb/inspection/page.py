"""The page of an inspection: findings, columns, lengths, residuals, and what the cameras show."""

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from phaseb.episodes.tasks import count_by_task
from phaseb.inspection.data_issue import DataIssue
from phaseb.inspection.inspection import Inspection
from phaseb.inspection.recordings import Floats, Group
from phaseb.inspection.residuals import UNLIKE
from phaseb.report.animation import png_strip
from phaseb.report.html import Figure, document, gallery, paragraph, section, table
from phaseb.report.svg import BLUE, GREY, RED, Chart
from phaseb.runtime.formatting import number

MOST_ROWS, MOST_PLOTS, NUM_USUAL = 200, 12, 4


def page(found: Inspection) -> str:
    """The page as one HTML document."""
    verdict = "A run would be refused." if found.refused else "A run would be accepted."
    warnings = sum(one.severity == "warning" for one in found.findings)
    kind = "verdict kept" if found.refused or warnings else "verdict"
    rows = [[one.severity, one.kind, str(one)] for one in found.findings[:MOST_ROWS]]
    return document(
        f"Inspection of {found.path}",
        [
            paragraph(f"{verdict} {warnings} likely faults.", kind),
            paragraph(summary(found)),
            section("Findings", table(["severity", "kind", "what"], rows, told=True) if rows else paragraph("None.")),
            section("Where", gallery(list(_faults(found)))),
            section("What a run would do", *(paragraph(line) for line in found.plan())),
            section("Episodes", gallery(list(_overview(found)))),
            section("Cameras", *_pictures(found)),
            section("Columns", _columns(found.states), _columns(found.actions)),
        ],
    )


def summary(found: Inspection) -> str:
    """One line on what there is."""
    if found.survey is None or not found.survey.lengths:
        return f"{found.source}: nothing can be read"
    lengths, survey = np.array(list(found.survey.lengths.values())), found.survey
    parts = [
        f"{found.source}: {len(lengths)} episodes, {survey.num_steps} steps (shortest {lengths.min()}, median "
        f"{np.median(lengths):g}, longest {lengths.max()})"
    ]
    widths = [len(group.names) if group else 0 for group in (found.states, found.actions)]
    parts.append(f"{widths[0]} state and {widths[1]} action columns")
    if np.isfinite(survey.step_s) and survey.step_s > 0:
        parts.append(f"{1 / survey.step_s:.4g} Hz")
    if survey.tasks:
        parts.append(f"tasks: {count_by_task(survey.tasks)}")
    if survey.frame_shape:
        parts.append(f"frames {'x'.join(map(str, survey.frame_shape))}")
    return "; ".join([*parts, *(f"camera {name}: {text}" for name, text in found.cameras)])


def _overview(found: Inspection) -> Iterator[Figure]:
    if found.survey is None or not found.survey.lengths:
        return
    lengths = np.sort(np.array(list(found.survey.lengths.values())))
    chart = Chart("Lengths", "episodes, by length", "steps", y_from_zero=True)
    at = np.unique(np.linspace(0, len(lengths) - 1, 200).astype(int))
    chart.line(at.tolist(), lengths[at].tolist(), "steps", BLUE)
    yield Figure("Lengths", chart.svg(), "Steps of each episode, ascending.")
    if found.residuals is not None:
        ids, errors = found.residuals.ids, np.exp(found.residuals.excess.max(axis=1))
        chart = Chart("Error", "episode", "times the usual", y_from_zero=True).level(UNLIKE, "unlike the rest")
        chart.points(range(len(ids)), errors, "error of the worst column", BLUE, ids)
        yield Figure(
            "One-step prediction",
            chart.svg(),
            "Error of the prediction that the other episodes were fitted "
            "with, in the worst column, over the median episode's.",
        )


def _faults(found: Inspection) -> Iterator[Figure]:
    """The columns of findings: the episode in red, usual ones in grey."""
    marked = {name for one in found.findings for name in one.episodes}
    drawn = [one for one in found.findings if one.column and one.episodes]
    for one in drawn[:MOST_PLOTS]:
        for group in (found.states, found.actions):
            if group is not None and one.column in group.names and one.episodes[0] in group.ids:
                yield _fault(one, group, marked)


def _fault(one: DataIssue, group: Group, marked: set[str]) -> Figure:
    column = group.names.index(one.column)
    chart = Chart(one.column, "row", one.column)
    for i in [i for i, name in enumerate(group.ids) if name not in marked][:NUM_USUAL]:
        _draw(chart, group.episode(i)[:, column], "usual episodes", GREY)
    _draw(chart, group.episode(group.ids.index(one.episodes[0]))[:, column], one.episodes[0], RED)
    return Figure(f"{one.kind}: {one.episodes[0]}", chart.svg(), one.text)


def _draw(chart: Chart, values: Floats, name: str, color: str) -> None:
    at = np.unique(np.linspace(0, len(values) - 1, 400).astype(int))
    chart.line(at.tolist(), values[at].tolist(), name, color, dots=False)


def _pictures(found: Inspection) -> Iterator[str]:
    cameras = dict.fromkeys(track.camera for track in found.tracks)
    for camera in cameras:
        shown = [
            (track.id, track.still) for track in found.tracks if track.camera == camera and track.still is not None
        ]
        pictures = [picture for _, picture in shown[:8] if picture is not None]
        if pictures:
            names = ", ".join(name for name, _ in shown)
            yield f'<figure><img src="{png_strip(np.stack(pictures))}" alt="{escape(camera)}" style="width:100%">'
            yield f"<figcaption>{escape(camera)}, in the middle of {escape(names)}</figcaption></figure>"


def _columns(group: Group | None) -> str:
    if group is None or not len(group.rows) or not group.names:
        return ""
    quantiles = np.quantile(group.rows, (0, 0.01, 0.5, 0.99, 1), axis=0)
    rows = [[name, *map(number, values.tolist())] for name, values in zip(group.names, quantiles.T, strict=True)]
    return table(["column", "least", "1 %", "median", "99 %", "greatest"], rows)


def lines(found: Inspection) -> Sequence[str]:
    """The inspection as lines of text."""
    told = [f"{found.path}: {summary(found)}"]
    told += [f"  {one.severity:<8} {one.kind:<10} {one}" for one in found.findings]
    return [*told, *(f"  run      {line}" for line in found.plan())]
