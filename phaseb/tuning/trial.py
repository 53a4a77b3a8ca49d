"""One trial: a point of the search space put into the config, and the job's own learner trained under it.

The same function serves a trial in one process and a trial that is itself a Ray Train run of several workers.
"""

import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ray import ObjectRef, get, tune

from phaseb.config.root import Config
from phaseb.errors import PhasebError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.storage import Store
from phaseb.training.fit import fit
from phaseb.training.learner import Learner
from phaseb.training.loop import train
from phaseb.training.training_state import copy_checkpoint, read_progress
from phaseb.tuning.objective import Objective, find_objective
from phaseb.tuning.space import apply_point, lookup
from phaseb.tuning.trial_store import trial_key

SEED = "seed"
"""Key of a trial's seed beside the dotted names of its point."""
FROM, UNTIL = "from", "until"
"""Of a stretch of a population's training: whose weights it begins with ([key, turn]); its own turn and last step."""


@dataclass(frozen=True)
class TrialTask:
    """What all trials of a study share.

    Attributes:
        config: base config with the study's overrides.
        store: folder of the trials' checkpoints.
        reports: looks at the real metric over a trial.
        repeats: seeds a point.
        workers: above 0, train on Ray Train workers.
        test: measure the sealed test split too, at the end.
        home: folder that one's own objective is imported from.
    """

    job: str
    config: Config
    store: Store
    reports: int
    repeats: int = 1
    workers: int = 0
    test: bool = False
    home: str = ""


def run_trial(settings: Mapping[str, Any], task: TrialTask, data: list[ObjectRef]) -> None:
    """The function that Ray Tune runs; reports `steps`, the metrics and `seconds` as it goes.

    `data` holds one reference (in a list, so that it is handed on as a reference): all trials of a node share one copy.

    A point that diverges, or that the learner refuses, is reported as failed, with its reason; nothing is raised, so
    nobody tries it again. A lost process or node is another matter: Tune starts such a trial again.
    """
    point = point_of(settings)
    config = apply_point(task.config, point)
    first = int(settings[SEED])
    trial = _Trial(task, config, data, trial_key(point, first), time.monotonic())
    if UNTIL in settings:
        trial.begin(settings[FROM], *settings[UNTIL])
    try:
        trial.prepare()
        finals = [trial.train(first + repeat, reporting=repeat == 0) for repeat in range(task.repeats)]
    except PhasebError as error:
        tune.report({"failed": str(error), "steps": trial.steps})
        return
    tune.report({**_mean(finals), "steps": trial.num_steps, "seconds": time.monotonic() - trial.started})


def point_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's point among what it was given."""
    return {name: value for name, value in settings.items() if name not in (SEED, FROM, UNTIL)}


class _Trial:
    def __init__(self, task: TrialTask, config: Config, data: list[ObjectRef], key: str, started: float) -> None:
        self.task, self.config, self.data, self.key, self.started = task, config, data, key, started
        self.num_steps = self.steps = self.turn = 0
        self.origin: Sequence[Any] = ()

    def begin(self, origin: Sequence[Any], turn: int, until: int) -> None:
        """Be a stretch of a population's training, up to `until` steps, with the weights of `origin` [key, turn]."""
        self.origin, self.turn, self.num_steps = origin, turn, until

    def prepare(self) -> None:
        """Find out how long the trial is."""
        if not self.turn:
            objective = find_objective(self.task.job, self.task.home)
            self.num_steps = int(lookup(self.config.model_dump(mode="json"), objective.steps))

    def train(self, seed: int, reporting: bool) -> dict[str, float]:
        """Train under one seed; returns the metrics at the end."""
        every = max(1, math.ceil(self.num_steps / (1 if self.turn else self.task.reports)))
        training = self.config.training.model_copy(update={"validate_every": every, "log_every": every})
        store = self.task.store.folder(self.key, f"turn-{self.turn}" if self.turn else str(seed))
        self._take_over(store)
        make = functools.partial(measured_learner, self.task, self.config, self.num_steps)
        report = self._report if reporting else _silent
        if self.task.workers:
            resources = self.config.resources.model_copy(update={"num_workers": self.task.workers})
            rows = fit(
                make,
                self.data,
                seed=seed,
                key=self.key,
                store=store,
                training=training,
                resources=resources,
                name=f"trial-{self.key}",
                on_progress=report,
            ).rows
        else:
            torch.set_num_threads(1)
            context = WorkerContext(seed)
            rows = train(make(self.data, context), context, training, store, self.key, report).rows
        return {name: value for name, value in rows[-1].items() if name not in ("step", "seconds", "num_steps")}

    def _take_over(self, store: Store) -> None:
        """Begin a stretch with the weights of the last turn; none older is needed any more."""
        if self.origin and read_progress(store, self.key) is None:
            key, turn = self.origin
            copy_checkpoint(self.task.store.folder(key, f"turn-{turn}"), key, store, self.key, self.num_steps)
        if self.turn > 1:
            self.task.store.delete(self.key, f"turn-{self.turn - 2}")

    def _report(self, metrics: Mapping[str, float]) -> None:
        self.steps = int(metrics["step"])
        if self.steps < self.num_steps:  # the end is reported once, over all seeds
            rest = {name: value for name, value in metrics.items() if name not in ("step", "num_steps")}
            tune.report({**rest, "steps": self.steps, "seconds": time.monotonic() - self.started})


class MeasuredLearner:
    """The job's own learner, whose held-out look is the search's real metric; it trains up to `num_steps`."""

    def __init__(
        self,
        learner: Learner,
        objective: Objective,
        config: Config,
        data: Any,
        context: WorkerContext,
        test: bool,
        num_steps: int,
    ) -> None:
        self._learner, self._objective, self._config, self._data = learner, objective, config, data
        self._context, self._test = context, test
        self.num_steps = num_steps

    def step(self, step: int) -> dict[str, float]:
        self._learner.step(step)
        return {}

    def validate(self, step: int) -> dict[str, float]:
        """The metrics of the objective, with the seconds that they took."""
        started = time.monotonic()
        arguments = (self._learner, self._config, self._data, self._context.seed)
        metrics = self._objective.measure(*arguments)
        if self._test and step + 1 == self.num_steps:
            sealed = self._objective.measure(*arguments, split="test")
            metrics |= {f"test/{name}": value for name, value in sealed.items()}
        return {**metrics, "seconds_measuring": time.monotonic() - started}

    def state_dict(self) -> dict[str, Any]:
        return self._learner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._learner.load_state_dict(state)


def measured_learner(
    task: TrialTask, config: Config, num_steps: int, data: list[ObjectRef], context: WorkerContext
) -> MeasuredLearner:
    """The learner of a trial, in this process or in a worker of its own."""
    objective, whole = find_objective(task.job, task.home), get(data[0])
    return MeasuredLearner(
        objective.make_learner(config, whole, context), objective, config, whole, context, task.test, num_steps
    )


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _silent(metrics: Mapping[str, float]) -> None:
    return None
