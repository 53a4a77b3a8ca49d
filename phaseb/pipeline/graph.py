"""Run stages as a graph: each starts when its inputs are done, and independent ones run beside each other.

The driver keeps `run.json`: it decides what is up to date, starts a Ray task for every other stage and records what it
returns. A stage that is killed is called again and goes on from what it left on storage.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from phaseb import __version__
from phaseb.config.root import Config
from phaseb.errors import ClusterError, DataError, PhasebError
from phaseb.pipeline.machine import Machine
from phaseb.pipeline.requirement import show
from phaseb.pipeline.requirements import preflight
from phaseb.pipeline.result import Callback, RunResult
from phaseb.pipeline.run_directory import RunDirectory, folder_digest
from phaseb.pipeline.sizes import read_facts
from phaseb.pipeline.stage import Execute, Stage, StageContext
from phaseb.runtime import logs, signals
from phaseb.runtime.ray_session import ray_session, training_request
from phaseb.training.preemption import stop_tasks, stopped_by_request
from phaseb.training.progress_file import publish_progress

POLL_S = 1.0
STOP_S = 25.0
"""How long stages may take to write their checkpoints when the run is stopped."""
PROGRESS = "progress"

Replan = Callable[[Config], Sequence[Stage]]
"""The stages under a config that was fitted to the episodes."""


def run_graph(
    stages: Sequence[Stage],
    config: Config,
    callbacks: Sequence[Callback] = (),
    job: str | None = None,
    replan: Replan | None = None,
) -> dict[str, RunResult]:
    """Run every stage that is not up to date; up to `resources.num_tasks` of them at a time.

    Args:
        stages: of the graph, each after its inputs.
        config: of the run.
        callbacks: called in this process.
        job: run the stages of this command alone; their other inputs must be done.
        replan: makes the stages anew once the episodes are known; None: they stay.

    Returns:
        what every stage came to, by name.

    Raises:
        DataError: where an input of a stage has not been made.
        PhasebError: the error of a stage; stages beside it are stopped.
        ClusterError: where a stage's process was lost too often.
        KeyboardInterrupt: where the run was stopped; trainings have written a checkpoint.
    """
    places = {stage.name: place for place, stage in enumerate(stages)}
    late = [(s.name, n) for s in stages for n in s.inputs if places.get(n, -1) >= places[s.name]]
    if late:
        raise ValueError(f"stages stand before their inputs: {late}")
    preflight(config, None).require(*([] if job is None else [job]))
    with ExitStack() as session:
        run = _GraphRun(stages, config, callbacks, job, session, replan)
        try:
            run.to_end()
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt) or signals.shutdown_requested():
                run.stop()
            raise
        return run.results


@dataclass
class _Running:
    """A stage that was started."""

    stage: Stage
    entry: dict[str, Any]
    seconds_before: float
    seen: Mapping[str, float] | None = None


@dataclass(frozen=True)
class StageOutcome:
    """What a stage's process returns: metrics, digests of the outputs, seconds, warnings that it logged."""

    metrics: dict[str, Any]
    outputs: dict[str, str]
    seconds: float
    warnings: list[tuple[str, dict[str, Any]]]


class _GraphRun:
    def __init__(
        self,
        stages: Sequence[Stage],
        config: Config,
        callbacks: Sequence[Callback],
        job: str | None,
        session: ExitStack,
        replan: Replan | None = None,
    ) -> None:
        self.directory = RunDirectory.open(config)
        self.config, self.callbacks, self.job, self.session = config, callbacks, job, session
        self.replan = replan
        self.all = {stage.name: stage for stage in stages}
        self.waiting = [s for s in stages if job in (None, s.command)]
        self.running: dict[Any, _Running] = {}
        self.results: dict[str, RunResult] = {}
        self._up = False
        self._require_inputs(job)

    def _require_inputs(self, job: str | None) -> None:
        """Check that the inputs which this run does not make are there."""
        mine, lineage = {stage.name for stage in self.waiting}, self.directory.lineage()["stages"]
        needed = {name: None for stage in self.waiting for name in stage.inputs}
        missing = [n for n in needed if n not in mine and lineage.get(n, {}).get("state") != "done"]
        if missing:
            missing.sort(key=list(self.all).index)
            command = self.all[missing[0]].command
            raise DataError(f"{job} needs {', '.join(missing)} first: run `phaseb {command}` with this config")

    def to_end(self) -> None:
        requested = signals.shutdown_requested()  # of an earlier run of this process
        while self.waiting or self.running:
            if signals.shutdown_requested() and not requested:
                raise KeyboardInterrupt  # Ray swallows one that is raised within its callbacks; the request stays
            self._start_ready()
            if self.running:
                self._wait()

    def stop(self) -> None:
        """Interrupt the stages at work and wait for their checkpoints."""
        folder = self.directory.store.folder(PROGRESS)
        requests = [(folder, _stop_file(running.stage.name)) for running in self.running.values()]
        stop_tasks(list(self.running), requests, STOP_S)

    def _start_ready(self) -> None:
        for stage in list(self.waiting):
            if stage not in self.waiting:  # the episodes, known since, made another plan: the next round follows it
                continue
            unfinished = {s.name for s in self.waiting} | {r.stage.name for r in self.running.values()}
            if unfinished & set(stage.inputs) or not self._has_room(stage):
                continue
            self.waiting.remove(stage)
            key = stage.key(self.config, self.directory.lineage()["stages"])
            before = self.directory.stage(stage.name)
            for callback in self.callbacks:
                callback.on_stage_start(stage.name)
            if before.get("state") == "done" and before["key"] == key:
                self._end(stage, before["metrics"], before["seconds"], skipped=True)
            else:
                self._start(stage, key, before)

    def _has_room(self, stage: Stage) -> bool:
        """Whether a stage may start: always beside none, else within `num_tasks` and the CPUs that there are."""
        if not self.running:
            return True
        needed = sum(self._cpus(other) for other in (stage, *(r.stage for r in self.running.values())))
        cpus = float(ray.cluster_resources().get("CPU", 0.0))
        return len(self.running) < self.config.resources.num_tasks and needed <= cpus

    def _cpus(self, stage: Stage) -> float:
        resources = self.config.resources
        workers = training_request(resources).get("CPU", 0.0) if stage.trains else 0.0
        return workers or resources.cpus_per_task

    def _start(self, stage: Stage, key: str, before: Mapping[str, Any]) -> None:
        directory, resumed = self.directory, before.get("key") == key
        config = self._fitted(stage)
        if not self._up:
            self.session.enter_context(ray_session(self.config.resources))
            self._up = True
        if not resumed:
            for output in stage.outputs:
                directory.store.delete(*output.split("/"))
        spent = float(before.get("seconds", 0.0)) if resumed else 0.0
        stages = directory.lineage()["stages"]
        entry = {
            "state": "started",
            "key": key,
            "version": __version__,
            "started": _now(),
            "seconds": spent,
            "inputs": {name: stages[name]["outputs"] for name in stage.inputs},
        }
        directory.record(stage.name, entry)
        for file in (_progress_file(stage.name), _stop_file(stage.name)):
            directory.store.delete(PROGRESS, file)
        logs.event("stage starts", run=directory.store.root, stage=stage.name, resumed=resumed)
        in_process = stage.computes and not (stage.trains and self.config.resources.num_workers)
        task = ray.remote(execute_stage).options(
            name=stage.name,
            num_cpus=self.config.resources.cpus_per_task if in_process else 0,
            max_retries=self.config.resources.max_failures,
        )
        reference = task.remote(
            stage.execute, StageContext(config, directory.store, key, stage.name), stage.outputs, os.getcwd()
        )
        self.running[reference] = _Running(stage, entry, spent)

    def _wait(self) -> None:
        """Until a stage ends, or it is time to look at their progress."""
        ended, _ = ray.wait(list(self.running), num_returns=1, timeout=POLL_S)
        for running in self.running.values():
            self._poll(running)
        for reference in ended:
            running = self.running.pop(reference)
            self._record(running, _outcome(reference, running.stage.name))

    def _poll(self, running: _Running) -> None:
        name = running.stage.name
        try:
            found = self.directory.store.read_json(PROGRESS, _progress_file(name))
        except (DataError, OSError):
            return
        if found != running.seen:
            running.seen = found
            for callback in self.callbacks:
                callback.on_progress(name, found)

    def _record(self, running: _Running, outcome: StageOutcome) -> None:
        stage, seconds = running.stage, running.seconds_before + outcome.seconds
        for text, fields in outcome.warnings:
            logs.event(text, logging.WARNING, **fields)
        self.directory.record(
            stage.name,
            running.entry
            | {
                "state": "done",
                "ended": _now(),
                "seconds": seconds,
                "metrics": outcome.metrics,
                "outputs": outcome.outputs,
            },
        )
        self.directory.store.delete(PROGRESS, _progress_file(stage.name))
        logs.event("stage ends", stage=stage.name, seconds=round(seconds, 3))
        self._end(stage, outcome.metrics, seconds, skipped=False)

    def _end(self, stage: Stage, metrics: dict[str, Any], seconds: float, skipped: bool) -> None:
        for callback in self.callbacks:
            callback.on_stage_end(stage.name, metrics, seconds, skipped)
        self.results[stage.name] = RunResult(metrics, {output: output for output in stage.outputs})
        if stage.name == "collect":
            self._check_episodes()

    def _check_episodes(self) -> None:
        """Report and record what the episodes change; refuse a run in which a stage to come would fail.

        Raises:
            PhasebError: with a line for each requirement that is not met.
        """
        facts = read_facts(self.directory.store)
        if facts is None:
            return
        found = preflight(self.config, facts)
        unmet = [str(need) for need in found.requirements if not need.met] if self.job else []
        show(self.callbacks, [*found.lines(), *unmet])
        self.directory.store.write_json({"lines": found.lines(), **found.to_json()}, "preflight.json")
        if self.job is None:
            found.require()
        if self.replan is not None:
            self.waiting = [stage for stage in self.replan(found.config) if stage.name not in self.results]

    def _fitted(self, stage: Stage) -> Config:
        """The config with sizes that fit the episodes, once there are some.

        Raises:
            PhasebError: where the stage would fail on them.
        """
        facts = None if stage.name == "collect" else read_facts(self.directory.store)
        found = preflight(self.config, facts, Machine(None, None, None, None))
        found.require(stage.command)
        return found.config


def execute_stage(execute: Execute, context: StageContext, outputs: Sequence[str], folder: str) -> StageOutcome:
    """A stage's work, in a Ray worker: interrupted on request, its metrics published for the driver."""
    import torch

    if os.path.isdir(folder):  # relative paths mean the same as in the driver
        os.chdir(folder)
    torch.set_num_threads(1)
    logs.configure(worker=True)
    logs.bind(run=context.store.root, stage=context.name)
    progress, stop_file = context.store.folder(PROGRESS), _stop_file(context.name)
    published = publish_progress(progress, _progress_file(context.name))
    with stopped_by_request(progress, stop_file), logs.collect_warnings() as warnings, published as report:
        started = time.monotonic()
        store, name = context.store, context.name
        metrics = execute(StageContext(context.config, store, context.key, name, report))
        digests = {output: folder_digest(store, *output.split("/")) for output in outputs}
        return StageOutcome(metrics, digests, time.monotonic() - started, warnings)


def _outcome(reference: Any, name: str) -> StageOutcome:
    """The outcome of a stage; its error as itself.

    Raises:
        ClusterError: where its process was lost.
    """
    try:
        outcome: StageOutcome = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, PhasebError):
            raise error.cause from None
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise
    except RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClusterError(f"stage {name} lost its process: {reason}; run the same command again to go on") from error
    return outcome


def _progress_file(name: str) -> str:
    return f"{name.replace('/', '-')}.json"


def _stop_file(name: str) -> str:
    return f"stop-{_progress_file(name)}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
