"""Who ends trials early: asynchronous successive halving in optimiser steps, and budgets over the whole study."""

import math
import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune import Stopper
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from phaseb.config.tuning import Metric, StudyConfig
from phaseb.tuning.trial_store import TrialRecord

STEPS = "steps"
HOPELESS = 8
"""A study whose first so many trials all fail is ended: something is wrong with all of them."""


def make_scheduler(study: StudyConfig, num_steps: int, past: Sequence[TrialRecord]) -> TrialScheduler:
    """The scheduler of a study; what past trials reported at each rung counts on.

    HyperBand here is its asynchronous form: several brackets of successive halving, from eager to patient.
    """
    if study.scheduler.kind in ("none", "pbt"):  # a population is stopped by its own search
        return FIFOScheduler()
    every = max(1, math.ceil(num_steps / study.reports))
    grace = min(num_steps, max(every, math.ceil(study.scheduler.grace * num_steps / every) * every))
    metric = study.metrics[0]
    brackets = 3 if study.scheduler.kind == "hyperband" else 1
    fitting = int(math.log(num_steps / grace) / math.log(study.scheduler.reduction)) + 1
    scheduler = AsyncHyperBandScheduler(
        time_attr=STEPS,
        metric=metric.name,
        mode=metric.mode,
        max_t=num_steps,
        grace_period=grace,
        reduction_factor=study.scheduler.reduction,
        brackets=min(brackets, fitting),
        stop_last_trials=False,
    )
    for record in past:
        _replay(scheduler, record, metric)
    return scheduler


def keep_processes(scheduler: TrialScheduler, num: int) -> TrialScheduler:
    """Let Tune keep the processes of ended trials, `num` of them, for trials to come.

    By itself it keeps but one while no other trial waits, and so starts processes anew wherever several trials end
    before the next are proposed: at every turn of a population, and often among hundreds at once. Starting a process
    that imports torch takes longer than many a trial.
    """
    ended = scheduler.on_trial_complete
    known: list[str] = []

    def on_trial_complete(controller: Any, trial: Any, result: Any) -> None:
        if not known:
            known.append(trial.trial_id)
            controller._actor_cache.increase_max(trial.placement_group_factory, by=num)
        ended(controller, trial, result)

    scheduler.on_trial_complete = on_trial_complete
    return scheduler


def _replay(scheduler: AsyncHyperBandScheduler, record: TrialRecord, metric: Metric) -> None:
    """Let every bracket know what an earlier trial had at its rungs (the trial itself is over)."""
    sign = 1.0 if metric.mode == "max" else -1.0
    stand_in = SimpleNamespace(trial_id=record.key)
    for bracket in scheduler._brackets:
        for row in record.rows:
            if row.get(metric.name) is not None:
                bracket.on_result(stand_in, row[STEPS], sign * row[metric.name])


class Budget(Stopper):
    """Ends the study when its time or CPU hours are spent, or when patience runs out; never a single trial."""

    def __init__(self, study: StudyConfig, past: Sequence[TrialRecord]) -> None:
        self._metric, self._limits = study.metrics[0], study.budget
        self._cpus = study.resources.cpus + study.resources.workers
        self._started = time.monotonic()
        self._ended_s = sum(record.seconds for record in past)
        self._running_s: dict[str, float] = {}
        self._best: float | None = None
        self._since = self._failed = 0
        self.reason = ""
        for record in past:
            self._note(record.last)

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        self._running_s[trial_id] = float(result.get("time_total_s", 0.0))
        return False

    def ended(self, last: Mapping[str, Any]) -> None:
        """A trial ended with this last report."""
        self._note(last)

    def stop_all(self) -> bool:
        limits, spent_s = self._limits, time.monotonic() - self._started
        cpu_h = self._cpus * (self._ended_s + sum(self._running_s.values())) / 3600
        if limits.time_s is not None and spent_s >= limits.time_s:
            self.reason = f"budget.time_s: {spent_s:.0f} s spent"
        elif limits.cpu_hours is not None and cpu_h >= limits.cpu_hours:
            self.reason = f"budget.cpu_hours: {cpu_h:.2f} spent"
        elif limits.patience is not None and self._since >= limits.patience:
            self.reason = f"budget.patience: nothing better in {self._since} trials"
        elif self._best is None and self._failed >= HOPELESS:
            self.reason = f"the first {self._failed} trials all failed"
        return bool(self.reason)

    def _note(self, last: Mapping[str, Any]) -> None:
        value = last.get(self._metric.name)
        better = (
            value is not None
            and value == value
            and (self._best is None or (value < self._best if self._metric.mode == "min" else value > self._best))
        )
        self._since = 0 if better else self._since + 1
        self._failed += value is None
        if better:
            self._best = value
