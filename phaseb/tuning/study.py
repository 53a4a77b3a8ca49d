"""A study from its file to `best.yaml`: check, prepare the data once, search, run the best again on fresh seeds."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from phaseb.config.run import ResourcesConfig
from phaseb.errors import PhasebError
from phaseb.runtime.ray_session import ray_session
from phaseb.runtime.run_lock import run_lock
from phaseb.runtime.seeding import derive_seed
from phaseb.runtime.storage import Store
from phaseb.tuning.callback import Recorder
from phaseb.tuning.early_stopping import Budget, keep_processes, make_scheduler
from phaseb.tuning.live_view import StudyConsole
from phaseb.tuning.objective import home_of
from phaseb.tuning.population import Population
from phaseb.tuning.result import Conclusion, StudyResult
from phaseb.tuning.resume import open_study
from phaseb.tuning.search import ListSearch, OptunaPoints, new_database, write_database
from phaseb.tuning.space import Point, defaults, grid, lookup
from phaseb.tuning.trackers.tracker import Trackers
from phaseb.tuning.trial import SEED, TrialTask, point_of, run_trial
from phaseb.tuning.trial_store import TrialRecord, TrialStore, best_trials, pareto_front, trial_key
from phaseb.tuning.validation import CheckedStudy, load_study

TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that diverged reports its reason, no metric
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the trackers that a study names are ours
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the records are what a resume reads; Tune's own pickles are never read
    "TUNE_WARN_THRESHOLD_S": "10",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_study(path: str, resume: bool = False, watch: bool = False, auto_resume: bool = False) -> StudyResult:
    """Run a study, or go on with one that was stopped.

    Args:
        path: of the study file.
        resume: go on with a study that there must be.
        watch: show trials live.
        auto_resume: go on where there is one, else start it, as a job does that is started again.

    Raises:
        ConfigError: where the study file is wrong, the study exists already, or a resume finds it changed.
        ClusterError: where one trial needs more than the cluster has.
    """
    for name, value in TUNE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    checked = load_study(path)
    store = Store.at(checked.base.run.dir).folder("studies", checked.name)
    open_study(checked, store, resume or (auto_resume and store.exists("study.json")))
    with run_lock(store), ray_session(_session(checked), _wanted(checked)):
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are in the records, with their reasons
        return _Study(checked, store, watch).run()


class _Study:
    def __init__(self, checked: CheckedStudy, store: Store, watch: bool) -> None:
        self.checked, self.study, self.store = checked, checked.study, store
        self.records = TrialStore(store.folder("trials"))
        self.console = StudyConsole(self.study, self.records, watch)
        self.trackers = Trackers(self.study, checked.name, store)
        self.num_steps = int(lookup(checked.config.model_dump(mode="json"), checked.objective.steps))
        self.seed = checked.config.run.seed
        self.metric = self.study.metrics[0]
        self.metric_names = list(checked.objective.metrics(checked.config))
        self.started = time.monotonic()

    def run(self) -> StudyResult:
        try:
            data = [ray.put(self.checked.objective.prepare(self.checked.base, [self.console]))]
        finally:
            self.console.close()  # a stage that failed leaves no live line behind
        with self.console, self.trackers:
            ended_by = self._search(data)
            for _ in range(self.study.max_retries):  # what a lost node left open
                if not ended_by and not all(r.ended for r in self.records.phase("search")):
                    ended_by = self._search(data)
            candidates = self._candidates()
            for _ in range(1 + self.study.max_retries):
                self._confirm(candidates, data)
        seeds = self._fresh_seeds() if self.study.confirm.top else [self.seed]
        return Conclusion(self.checked, self.records, self.store, seeds).conclude(candidates, self.started, ended_by)

    def _search(self, data: list[Any]) -> str:
        past = [r for r in self.records.phase("search") if r.ended]
        budget = Budget(self.study, past)
        recorder = self._recorder("search", budget)
        searcher, num_left = self._searcher(past, recorder)
        if num_left > 0 and not budget.stop_all():
            scheduler = make_scheduler(self.study, self.num_steps, past)
            self._tune(searcher, scheduler, num_left, self._task(test=False), data, recorder)
        if not isinstance(searcher, OptunaPoints):
            write_database(self.study, self.records.phase("search"), self.store)
        return budget.reason

    def _searcher(self, past: Sequence[TrialRecord], recorder: Recorder) -> tuple[Searcher, int]:
        """Who proposes, and how many proposals are left at most."""
        budget = self.study.budget.trials
        if self.study.scheduler.kind == "pbt":
            changes = getattr(self.checked.objective, "changes", "")
            population = Population(
                self.study, self.checked.config, changes, self.num_steps, self.records, recorder.end
            )
            return population, population.num_stretches
        if self.study.search.algorithm == "grid":
            points = list(grid(self.study.space))
            tried = {r.key for r in past}
            left = [{**p, SEED: self.seed} for p in points if trial_key(p, self.seed) not in tried]
            return ListSearch(left), min(len(points), budget) - len(past)
        again = [r.point for r in self.records.phase("search") if not r.ended]
        own = defaults(self.study.space, self.checked.config) if self.study.search.try_defaults else None
        first = [own] if own is not None and self.records.get(trial_key(own, self.seed)) is None else []
        database = new_database(self.store)
        return OptunaPoints(self.study, self.seed, past, again, first, database), budget - len(past)

    def _candidates(self) -> list[Point]:
        """The best points of the search, and the base config's own values ({}) to compare with."""
        if len(self.study.metrics) > 1:
            best = pareto_front(self.records.phase("search"), self.study.metrics)
        else:
            best = best_trials(self.records.phase("search"), self.metric)
        if not best:
            failed = [r.reason for r in self.records.phase("search") if r.state == "failed"]
            why = f"; the first said: {failed[0]}" if failed else "; raise the budget"
            raise PhasebError(f"study {self.checked.name}: no trial came to an end{why}")
        return [record.point for record in best[: max(1, self.study.confirm.top)]]

    def _confirm(self, candidates: Sequence[Point], data: list[Any]) -> None:
        if not self.study.confirm.top:
            return
        wanted = [{**point, SEED: seed} for point in [{}, *candidates] for seed in self._fresh_seeds()]
        left = [one for one in wanted if not self._confirmed(one)]
        if left:
            recorder = self._recorder("confirm", None)
            self._tune(ListSearch(left), FIFOScheduler(), len(left), self._task(test=True), data, recorder)

    def _confirmed(self, settings: Mapping[str, Any]) -> bool:
        record = self.records.get(trial_key(point_of(settings), settings[SEED]))
        return record is not None and record.ended

    def _fresh_seeds(self) -> list[int]:
        return [derive_seed(self.seed, "confirm", i) % 2**31 for i in range(self.study.confirm.seeds)]

    def _task(self, test: bool) -> TrialTask:
        study = self.study
        return TrialTask(
            study.job,
            self.checked.config,
            self.store.folder("checkpoints"),
            study.reports,
            1 if test else study.repeats,
            study.resources.workers,
            test,
            home_of(study.job),
        )

    def _recorder(self, phase: str, budget: Budget | None) -> Recorder:
        return Recorder(
            self.study,
            self.records,
            phase,
            self.store.folder("checkpoints"),
            self.metric_names,
            self.num_steps,
            [self.console, self.trackers],
            budget,
        )

    def _tune(
        self,
        searcher: Searcher,
        scheduler: TrialScheduler,
        num_trials: int,
        task: TrialTask,
        data: list[Any],
        recorder: Recorder,
    ) -> None:
        study = self.study
        resources = {"CPU": study.resources.cpus, "GPU": study.resources.gpus}
        trainable = tune.with_resources(
            tune.with_parameters(run_trial, task=task, data=data), {k: v for k, v in resources.items() if v}
        )
        scratch = self.store.folder("tune", recorder.phase)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=ConcurrencyLimiter(searcher, study.concurrency),
                num_samples=num_trials,
                scheduler=keep_processes(scheduler, study.concurrency),
                max_concurrent_trials=None,
                reuse_actors=not study.resources.workers,
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=scratch.root,
                storage_filesystem=scratch.filesystem,
                verbose=0,
                stop=recorder.budget,
                callbacks=[recorder],
                failure_config=tune.FailureConfig(max_failures=study.max_retries),
            ),
        )
        try:
            tuner.fit()
        finally:
            self.store.delete("tune")


def _session(checked: CheckedStudy) -> ResourcesConfig:
    """The session's resources: a trial that is a Train run of its own needs the dashboard, which frees what a stopped
    one held."""
    resources = checked.base.resources
    return resources.model_copy(update={"dashboard": True}) if checked.study.resources.workers else resources


def _wanted(checked: CheckedStudy) -> dict[str, float]:
    """What must be free before the search starts: one trial, or all at once where they could lock each other."""
    one, per_worker = checked.study.resources, checked.base.resources
    if not one.workers:
        return {name: amount for name, amount in {"CPU": one.cpus, "GPU": one.gpus}.items() if amount}
    at_once = min(checked.study.concurrency, checked.study.budget.trials)
    cpus = at_once * (one.cpus + one.workers * per_worker.cpus_per_worker)
    gpus = at_once * (one.gpus + one.workers * per_worker.gpus_per_worker)
    return {name: amount for name, amount in {"CPU": cpus, "GPU": gpus}.items() if amount}
