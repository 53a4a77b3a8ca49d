"""What a Ray Train worker does: one training and go, or one after another as they are left in a mailbox."""

import gc
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
from phaseb.errors import ConfigError, DataError, DivergenceError, PhasebError
from phaseb.nn.data_parallel import LearnerContext, num_sharing
from phaseb.runtime import logs
from phaseb.runtime.storage import Store
from phaseb.training.learner import Learner
from phaseb.training.loop import train
from phaseb.training.mailbox import Outcome
from phaseb.training.preemption import Listener
from phaseb.training.progress_file import announcing
from phaseb.training.prometheus import Meters

USERS = (DivergenceError, DataError, ConfigError)
"""What would happen again: nobody starts workers anew for it."""

MakeLearner = Callable[[Any, LearnerContext], Learner]
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

    @property
    def meters(self) -> Meters:
        """Trials share one name: a meter for each would never end."""
        return Meters(self.name.partition("-")[0] if self.name.startswith("trial-") else self.name)


@dataclass(frozen=True)
class Place:
    """A worker's place: its rank, how many share the batches of how many that are there, and their process group."""

    rank: int
    sharing: int
    there: int
    group: distributed.ProcessGroup | None

    @classmethod
    def take(cls, wanted: int) -> "Place":
        """Every worker takes its own: a process group is made by all at once."""
        logs.configure(worker=True)
        worker = ray.train.get_context()
        rank, there = worker.get_world_rank(), worker.get_world_size()
        sharing = num_sharing(wanted, there)
        group = distributed.new_group(list(range(sharing))) if sharing < there else None
        return cls(rank, sharing, there, group)


def train_once(references: list[Any], wanted: int) -> None:
    """The life of a worker for one training; a reference in a list, so that all workers share what it refers to."""
    place = Place.take(wanted)
    if place.rank >= place.sharing:
        told = "worker stands by: the batch does not divide by all that are there"
        logs.event(told, there=place.there, wanted=wanted)
        return
    _train(ray.get(references[0]), place)


def train_whatever_comes(mailbox: Any, wanted: int) -> None:
    """The life of a resident worker: it is over when the mailbox is closed.

    Raises:
        DivergenceError, DataError, ConfigError: the user's, where others of the group may wait for this worker in a
            collective: then the group ends. A worker alone tells of it and goes on.
    """
    place, number, outcome = Place.take(wanted), 0, list[Outcome]()
    while (found := ray.get(mailbox.take.remote(number, outcome))) is not None:
        number, references = found
        try:
            _train(ray.get(references[0]), place)
            outcome = [None] if place.rank == 0 else []
        except USERS as error:
            outcome = [error]
            if place.there > 1:
                ray.get(mailbox.ended.remote(number, error))
                raise
        gc.collect()  # what a training held is not to stay until the next begins


def _train(job: Job, place: Place) -> None:
    torch.set_num_threads(job.training.torch_threads)
    logs.bind(run=job.store.root, stage=job.name, rank=place.rank, workers=place.sharing)
    context = LearnerContext(
        job.seed, place.rank, place.sharing, get_device(), place.group, job.training.graphs == "auto"
    )
    logs.event("worker starts", device=str(context.device))
    learner = job.make_learner(job.data, context)
    if context.rank:
        train(learner, context, job.training, job.store, job.key, _silent)
        return
    with Listener(job.store) as listener, announcing(job.store) as announce:
        try:
            train(learner, context, job.training, job.store, job.key, announce, noticed=listener.noticed,
                  leaving=listener.leaving, meters=job.meters)  # fmt: skip
        except KeyboardInterrupt:
            listener.left()


class EndOnUsersError(UserCallback):
    """Ends a group whose error is the user's, which another start would only repeat.

    Args:
        mailbox: of a resident group. It counts losses by training, where Ray Train would count over all of them; more
            than one training may have end the group too.
    """

    def __init__(self, mailbox: Any = None) -> None:
        self._mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train's controller; what is raised here ends the run."""
        errors = {rank: getattr(error, "_base_exc", error) for rank, error in worker_exceptions.items()}
        for error in errors.values():
            if isinstance(error, USERS):
                raise error
        for rank, error in errors.items():
            logs.event("worker lost", logging.WARNING, rank=rank, reason=_last_line(error))
        if self._mailbox is not None and not ray.get(self._mailbox.lost.remote()):
            error = next(iter(errors.values()))
            raise error if isinstance(error, PhasebError) else RuntimeError(_last_line(error))


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _silent(metrics: Mapping[str, float]) -> None:
    return None
