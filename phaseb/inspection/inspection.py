"""`phaseb inspect`: look at recordings without writing, and say what a run would do with them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from phaseb.config.root import Config
from phaseb.episodes.control import Control
from phaseb.episodes.control_choice import choose_action
from phaseb.episodes.control_source import OpenRecordings, open_recordings, steps_made_before, task_condition
from phaseb.episodes.sources import EpisodeSource, open_source
from phaseb.errors import DataError, PhasebError
from phaseb.inspection.between import duplicates, unit_changes
from phaseb.inspection.columns import constant_columns, jumps, saturated_columns, stuck_columns
from phaseb.inspection.data_issue import DataIssue, by_severity
from phaseb.inspection.frames import FrameTrack, camera_findings
from phaseb.inspection.recordings import Group, actions_of, states_of
from phaseb.inspection.residuals import Residuals, unlike_the_rest
from phaseb.inspection.survey import Survey, survey
from phaseb.inspection.videos import scan_videos
from phaseb.latents.observations import clock_columns, wrapping_angles
from phaseb.pipeline.dataset_stats import DataFacts
from phaseb.pipeline.machine import BASE_BYTES, memory_needs
from phaseb.pipeline.requirement import Preflight
from phaseb.runtime.formatting import size
from phaseb.stages.collect import EnvironmentSpec, environment_spec
from phaseb.stages.rehearsal import rehearse_recorded

COARSER_HZ = 10.0
"""Rate of control that is suggested where at least twice as much was recorded."""
COLUMN_RULES = (constant_columns, stuck_columns, saturated_columns, jumps)
KEPT_FINDINGS = {"unlike": ("unit", "stuck", "jump", "swapped", "saturated"), "cut": ("jump", "unit", "stuck")}
"""Kinds that say no more than others of the same episode: they are left out beside these."""


@dataclass(frozen=True)
class Inspection:
    """What some recordings hold, what is wrong with them, and what a run would do.

    Attributes:
        path, source: where they lie, and their format.
        survey: what was read; None where nothing could be.
        states, actions: the sample's columns.
        cameras: how each is kept, by name.
        tracks: what was seen of them.
        residuals: errors of the one-step prediction; None for too few episodes.
        facts, preflight: what a run would choose and need; None where that cannot be said.
        findings: errors first.
    """

    path: str
    source: str
    findings: tuple[DataIssue, ...]
    survey: Survey | None = None
    states: Group | None = None
    actions: Group | None = None
    cameras: tuple[tuple[str, str], ...] = ()
    tracks: tuple[FrameTrack, ...] = ()
    residuals: Residuals | None = None
    facts: DataFacts | None = None
    preflight: Preflight | None = None

    @property
    def refused(self) -> bool:
        """Whether a run would be refused."""
        return any(one.severity == "error" for one in self.findings)

    def plan(self) -> list[str]:
        """What a run would do with the recordings, a line each."""
        if self.facts is None or self.preflight is None:
            return []
        facts, config = self.facts, self.preflight.config
        counts = ", ".join(f"{facts.count(split)} {split}" for split in ("train", "dev", "test"))
        memory = max(need.bytes for need in memory_needs(config, facts)) + BASE_BYTES
        return [
            f"splits: {counts} episodes",
            f"rollouts of {config.synthesis.horizon} steps",
            f"memory: about {size(memory)}",
            *self._coarser(),
            *self.preflight.lines(),
        ]

    def _coarser(self) -> list[str]:
        """What a lower rate of control would do with recordings of a high one; nothing where one is set."""
        assert self.preflight is not None
        if self.preflight.config.episodes.control_hz is not None or self.survey is None or self.actions is None:
            return []
        if not self.survey.step_s > 0 or (recorded_hz := 1 / self.survey.step_s) < 2 * COARSER_HZ:
            return []
        actions = [one.actions.astype(np.float32) for one in self.survey.sample]
        control = choose_action(COARSER_HZ, recorded_hz, actions)
        kind = "one action, repeated" if control.action == "repeat" else f"a chunk of {control.rows}"
        steps = sum(control.num_steps(rows, False) for rows in self.survey.lengths.values())
        return [
            f"recorded at {recorded_hz:.4g} Hz: episodes.control_hz={COARSER_HZ:g} would make {steps} steps of "
            f"{control.rows} rows, their action {kind}"
        ]

    def to_json(self) -> dict[str, Any]:
        """All but the pictures."""
        return {
            "path": self.path,
            "source": self.source,
            "refused": self.refused,
            "schema": self._schema(),
            "findings": [one.to_json() for one in self.findings],
            "plan": self.plan(),
            "preflight": None if self.preflight is None else self.preflight.to_json(),
        }

    def _schema(self) -> dict[str, Any]:
        if self.survey is None:
            return {}
        lengths = np.array(list(self.survey.lengths.values()) or [0])
        columns = [
            {"name": name, "low": float(low), "high": float(high)}
            for group in (self.states, self.actions)
            if group is not None and len(group.rows)
            for name, low, high in zip(group.names, group.rows.min(axis=0), group.rows.max(axis=0), strict=True)
        ]
        return {
            "episodes": len(self.survey.lengths),
            "steps": self.survey.num_steps,
            "shortest": int(lengths.min()),
            "median": float(np.median(lengths)),
            "longest": int(lengths.max()),
            "step_s": self.survey.step_s,
            "columns": columns,
            "frames": self.survey.frame_shape,
            "cameras": dict(self.cameras),
            "tasks": dict(sorted(Counter(self.survey.tasks).items())),
        }


def inspect(config: Config) -> Inspection:
    """Inspect the recordings that a config names; nothing is written. What a run would raise becomes an error."""
    path, name = config.episodes.path, config.episodes.source
    try:
        source = open_source(config.episodes)
        steps, no_steps = _in_steps(config)
        control = steps.control if steps else steps_made_before(source, config.episodes)
        spec, no_spec = _environment(config, source, control, steps)
        found = survey(source, config, spec and spec.bounds, steps)
    except PhasebError as error:
        return Inspection(path, name, (DataIssue("refused", "error", str(error)),))
    known = {one.text for one in found.refused}
    found.refused += [one for one in [*no_steps, *no_spec] if one.text not in known]
    states, actions = states_of(found.sample, found.names), actions_of(found.sample)
    findings, residuals = _compare(found, states, actions)
    tracks, unread = _cameras(source, found, config.episodes.columns.images)
    findings += [*unread, *camera_findings(tracks, found.sample)]
    facts, plan, unmet = _rehearse(config, spec, steps.source if steps else source, found)
    if len(found.sample) < len(found.lengths):
        text = f"columns were compared over an even sample of {len(found.sample)} of {len(found.lengths)} episodes"
        unmet.append(DataIssue("sample", "note", text))
    seen: dict[str, str] = getattr(source, "cameras", dict)()
    return Inspection(
        path,
        name,
        tuple(by_severity([*found.refused, *_without_repeats(findings), *unmet])),
        found,
        states,
        actions,
        tuple(seen.items()),
        tuple(tracks),
        residuals,
        facts,
        plan,
    )


def _in_steps(config: Config) -> tuple[OpenRecordings | None, list[DataIssue]]:
    """The recordings in steps of `episodes.control_hz`, where it is set; an error where that cannot be done."""
    if config.episodes.control_hz is None:
        return None, []
    try:
        return open_recordings(config.episodes, config.run.seed), []
    except PhasebError as error:
        return None, [DataIssue("refused", "error", str(error))]


def _environment(
    config: Config, source: EpisodeSource, control: Control | None, steps: OpenRecordings | None
) -> tuple[EnvironmentSpec | None, list[DataIssue]]:
    """What the environment takes and shows; an error where it cannot be made, or does not know the tasks."""
    try:
        tasks = steps.tasks if steps else task_condition(source, config.episodes)[0]
    except DataError:
        tasks = ()  # which the survey says
    try:
        return environment_spec(config, control, tasks), []
    except PhasebError as error:
        return None, [DataIssue("environment", "error", str(error))]


def _compare(found: Survey, states: Group, actions: Group) -> tuple[list[DataIssue], Residuals | None]:
    """All rules on columns and episodes."""
    if not found.sample:
        return [], None
    findings = [one for group in (states, actions) for rule in COLUMN_RULES for one in rule(group)]
    findings += [*duplicates(found.sample), *unit_changes(states, actions)]
    unlike, residuals = unlike_the_rest(found.sample, found.names)
    if states.names:
        recorded = [one.state for one in found.sample]
        for column in np.flatnonzero(clock_columns(recorded)).tolist():
            text = f"{found.names[column]} is a clock that starts anywhere: policies do not see it"
            findings.append(DataIssue("clock", "note", text))
        for column, period in wrapping_angles(recorded).items():
            text = f"{found.names[column]} jumps by {period:.4g}, as an angle that wraps: give its sine and cosine"
            findings.append(DataIssue("angle", "note", text))
    return [*findings, *unlike], residuals


def _without_repeats(findings: Sequence[DataIssue]) -> list[DataIssue]:
    """Findings without those that only repeat what a more exact one says of the same episode."""
    kinds: dict[str, set[str]] = {}
    for one in findings:
        for name in one.episodes:
            kinds.setdefault(name, set()).add(one.kind)
    return [
        one
        for one in findings
        if not any(kinds[name].intersection(KEPT_FINDINGS.get(one.kind, ())) for name in one.episodes)
    ]


def _cameras(source: EpisodeSource, found: Survey, read: Sequence[str]) -> tuple[list[FrameTrack], list[DataIssue]]:
    """What the cameras show: of videos by their packets, else of the frames that were read.

    An episode that was refused when a run's cameras were read is not named once more.
    """
    if not getattr(source, "videos", dict)():
        return found.tracks, []
    tracks, unread = scan_videos(source, [name for name, _ in source.entries()], read)  # type: ignore[arg-type]
    refused = {name for one in found.refused for name in one.episodes}
    return tracks, [one for one in unread if one.severity != "error" or not refused.issuperset(one.episodes)]


def _rehearse(
    config: Config, spec: EnvironmentSpec | None, source: EpisodeSource, found: Survey
) -> tuple[DataFacts | None, Preflight | None, list[DataIssue]]:
    """What a run would choose, and errors for what it lacks."""
    if not found.lengths:
        return None, None, []
    try:
        plan = rehearse_recorded(config, spec, source, found.stats)
    except PhasebError as error:
        kind = "schema" if spec is None else "environment"
        return None, None, [DataIssue(kind, "error", str(error))]
    unmet = [DataIssue("requirement", "error", str(one)) for one in plan.requirements if not one.met]
    return found.stats.facts(), plan, unmet
