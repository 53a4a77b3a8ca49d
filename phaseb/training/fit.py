"""Train a learner where the config says: in this process (`resources.num_workers: 0`) or on Ray Train workers."""

import functools
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from phaseb import logs, notice
from phaseb.config.resources import ResourcesConfig
from phaseb.config.run import TrainingConfig
from phaseb.data_parallel import LearnerContext, num_sharing
from phaseb.errors import ClusterError, ConfigError, DataError, DivergenceError, PhasebError
from phaseb.runtime import scaling_config
from phaseb.storage import Store
from phaseb.training.learner import Learner
from phaseb.training.listener import Listener, ask_to_leave
from phaseb.training.loop import Progress, Report, read_progress, train
from phaseb.training.meters import Meters
from phaseb.training.progress import announcing, following

USERS = (DivergenceError, DataError, ConfigError)
"""What would happen again: nobody starts workers anew for it."""
LEAVE_S = 20.0
"""How long the workers may take to write a checkpoint when the driver is told to leave."""

MakeLearner = Callable[[Any, LearnerContext], Learner]
"""Makes the learner from the data (what was given to `fit`) and the worker's context."""


@dataclass(frozen=True)
class FitResult:
    """The end of a training: the learner's state, its metrics over steps, the seconds spent in steps."""

    state: dict[str, Any]
    rows: list[dict[str, float]]
    seconds: float

    @property
    def last(self) -> dict[str, float]:
        return self.rows[-1] if self.rows else {}


def fit(make_learner: MakeLearner, data: Any, *, seed: int, key: str, store: Store, training: TrainingConfig,
        resources: ResourcesConfig, name: str, on_progress: Report | None = None) -> FitResult:  # fmt: skip
    """Train to the end, surviving worker failures, going on from the checkpoint that a killed driver left.

    Args:
        make_learner: module-level function (or partial of one): (data, context) -> learner.
        data: arrays and whatever else the learner needs; put into the object store once for all workers.
        key: digest of config and inputs; only a checkpoint under the same key is gone on from.
        store: folder for the checkpoints.
        name: of the stage, for logs.
        on_progress: called with metrics at every held-out look.

    Raises:
        DivergenceError: the loss left the finite numbers.
        ClusterError: the workers could not be started or kept failing.
        KeyboardInterrupt: this process was told to leave; a checkpoint of that moment is written.
    """
    done = read_progress(store, key)
    if done is None or not done[1].complete:
        if resources.num_workers == 0:
            _train_here(make_learner, data, seed, key, store, training, name, on_progress)
        else:
            _train_on_workers(make_learner, data, seed, key, store, training, resources, name, on_progress)
        done = read_progress(store, key)
    if done is None:
        raise PhasebError(f"training {name} ended without a checkpoint in {store.root}")
    state, progress = done
    return FitResult(state, progress.rows, progress.seconds)


def _train_here(make_learner: MakeLearner, data: Any, seed: int, key: str, store: Store, training: TrainingConfig,
                name: str, on_progress: Report | None) -> Progress:  # fmt: skip
    torch.set_num_threads(training.torch_threads)
    context = LearnerContext(seed)
    with notice.deferred() as told:
        learner, meters = make_learner(data, context), Meters(_meter_name(name))
        return train(learner, context, training, store, key, on_progress or _silent, leaving=told, meters=meters)


def _train_on_workers(make_learner: MakeLearner, data: Any, seed: int, key: str, store: Store,
                      training: TrainingConfig, resources: ResourcesConfig, name: str,
                      on_progress: Report | None) -> None:  # fmt: skip
    reference = ray.put(data)
    settings = (seed, key, store, training, name, resources.num_workers)
    loop = functools.partial(_worker_loop, make_learner, [reference], *settings)
    scratch = store.folder("train")  # Train's own bookkeeping; the checkpoints are ours, so it is dropped at the end
    trainer = TorchTrainer(
        loop,
        torch_config=TorchConfig(
            backend=None if resources.gpus_per_worker else "gloo", timeout_s=int(resources.collective_timeout_s)
        ),
        scaling_config=scaling_config(resources),
        run_config=RunConfig(
            name=f"{name}-{uuid.uuid4().hex[:12]}",  # a name used before would silently resume that run
            storage_path=scratch.root,
            storage_filesystem=scratch.filesystem,
            failure_config=FailureConfig(max_failures=resources.max_failures, controller_failure_limit=3),
            callbacks=[EndOnUsersError()],
        ),
    )
    try:
        with following(store, on_progress):
            trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error, name) from error
    except KeyboardInterrupt:
        if notice.given():
            logs.event("leaving", written=ask_to_leave(store, LEAVE_S))
        raise
    finally:
        store.delete("train")


def _worker_loop(make_learner: MakeLearner, references: list[Any], seed: int, key: str, store: Store,
                 training: TrainingConfig, name: str, wanted: int) -> None:  # fmt: skip
    torch.set_num_threads(training.torch_threads)
    worker = ray.train.get_context()
    rank, there = worker.get_world_rank(), worker.get_world_size()
    sharing = num_sharing(wanted, there)
    logs.configure(worker=True)
    logs.bind(run=store.root, stage=name, rank=rank, workers=sharing)
    group = torch.distributed.new_group(list(range(sharing))) if sharing < there else None
    if rank >= sharing:
        logs.event("worker stands by: the batch does not divide by all that are there", there=there, wanted=wanted)
        return
    context = LearnerContext(seed, rank, sharing, get_device(), group, training.graphs == "auto")
    logs.event("worker starts", device=str(context.device))
    learner = make_learner(ray.get(references[0]), context)
    if context.rank:
        train(learner, context, training, store, key, _silent)
        return
    with Listener(store) as listener, announcing(store) as announce:
        try:
            train(learner, context, training, store, key, announce, noticed=listener.noticed,
                  leaving=listener.leaving, meters=Meters(_meter_name(name)))  # fmt: skip
        except KeyboardInterrupt:
            listener.left()


class EndOnUsersError(UserCallback):
    """Ends a training whose error is the user's, which another start would only repeat."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train's controller; what is raised here ends the run."""
        for error in worker_exceptions.values():
            inner = getattr(error, "_base_exc", error)
            if isinstance(inner, USERS):
                raise inner
        for rank, error in worker_exceptions.items():
            logs.event("worker lost", logging.WARNING, rank=rank, reason=str(error).strip().splitlines()[-1:])


def _meter_name(name: str) -> str:
    """Trials share one name: a meter for each would never end."""
    return name.partition("-")[0] if name.startswith("trial-") else name


def _cause(error: TrainingFailedError, name: str) -> PhasebError:
    """The user's error that ended the workers, where there is one; else what Ray says, as the cluster's failure."""
    inner = getattr(error, "controller_failure", None)
    if isinstance(inner, PhasebError):
        return inner
    text = str(error)
    for line in reversed(text.splitlines()):
        for kind in (*USERS, PhasebError):
            if f"{kind.__name__}: " in line:
                return kind(line.split(f"{kind.__name__}: ", 1)[1].strip())
    return ClusterError(f"training {name} failed on its workers: {text.strip().splitlines()[-1]}")


def _silent(metrics: Mapping[str, float]) -> None:
    return None
