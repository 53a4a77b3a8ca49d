"""The life of a Ray Train worker: one training."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
from ray.train import UserCallback
from ray.train.torch import get_device
from torch import distributed

from phaseb.config.run import TrainingConfig
from phaseb.errors import ConfigError, DataError, DivergenceError
from phaseb.nn.data_parallel import WorkerContext, num_active_workers
from phaseb.runtime import logs
from phaseb.runtime.storage import Store
from phaseb.training.learner import Learner
from phaseb.training.loop import train
from phaseb.training.preemption import PreemptionListener
from phaseb.training.progress_file import publish_progress
from phaseb.training.prometheus import Meters

NON_RETRYABLE = (DivergenceError, DataError, ConfigError)
"""Errors that another start of the workers would only repeat."""

MakeLearner = Callable[[Any, WorkerContext], Learner]
"""Makes the learner from the data (what was given to `fit`) and the worker's context."""


@dataclass(frozen=True)
class Job:
    """One training: see `fit`."""

    make_learner: MakeLearner
    data: Any
    seed: int
    key: str
    store: Store
    training: TrainingConfig
    name: str
    threads: int

    @property
    def meters(self) -> Meters:
        """Trials share one name: a meter for each would never end."""
        return Meters(self.name.partition("-")[0] if self.name.startswith("trial-") else self.name)


@dataclass(frozen=True)
class WorkerRank:
    """A worker's rank, how many of the workers that are there share the batches, and their process group."""

    rank: int
    num_active: int
    num_workers: int
    group: distributed.ProcessGroup | None

    @classmethod
    def current(cls, wanted: int) -> "WorkerRank":
        """That of this worker. All workers call it: a process group is made by all at once."""
        logs.configure(worker=True)
        worker = ray.train.get_context()
        rank, there = worker.get_world_rank(), worker.get_world_size()
        active = num_active_workers(wanted, there)
        group = distributed.new_group(list(range(active))) if active < there else None
        return cls(rank, active, there, group)


def train_once(references: list[Any], wanted: int) -> None:
    """Train the job behind a reference, which stands in a list so that all workers share what it refers to."""
    worker = WorkerRank.current(wanted)
    if worker.rank >= worker.num_active:
        text = "worker stands by: the batch does not divide by all that are there"
        logs.event(text, there=worker.num_workers, wanted=wanted)
        return
    _train(ray.get(references[0]), worker)


def _train(job: Job, worker: WorkerRank) -> None:
    torch.set_num_threads(job.threads)
    logs.bind(run=job.store.root, stage=job.name, rank=worker.rank, workers=worker.num_active)
    context = WorkerContext(
        job.seed, worker.rank, worker.num_active, get_device(), worker.group, job.training.graphs == "auto"
    )
    logs.event("worker starts", device=str(context.device))
    learner = job.make_learner(job.data, context)
    if context.rank:
        train(learner, context, job.training, job.store, job.key, _silent)
        return
    with PreemptionListener(job.store) as listener, publish_progress(job.store) as report:
        try:
            train(
                learner,
                context,
                job.training,
                job.store,
                job.key,
                report,
                preempted=listener.preemption_notice,
                stop=listener.stop_requested,
                meters=job.meters,
            )
        except KeyboardInterrupt:
            listener.confirm_stop()


class FailFastCallback(UserCallback):
    """Ends a training at once on an error that another start would only repeat."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train's controller; what is raised here ends the run."""
        errors = {rank: getattr(error, "_base_exc", error) for rank, error in worker_exceptions.items()}
        for error in errors.values():
            if isinstance(error, NON_RETRYABLE):
                raise error
        for rank, error in errors.items():
            logs.event("worker lost", logging.WARNING, rank=rank, reason=_last_line(error))


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _silent(metrics: Mapping[str, float]) -> None:
    return None
