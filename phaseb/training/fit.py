"""Train a learner where the config says: in this process (`resources.num_workers: 0`) or on Ray Train workers."""

import functools
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.train import FailureConfig, RunConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from phaseb.config.run import ResourcesConfig, TrainingConfig
from phaseb.errors import ClusterError, PhasebError
from phaseb.nn.data_parallel import LearnerContext
from phaseb.runtime import logs, signals
from phaseb.runtime.ray_session import scaling_config
from phaseb.runtime.storage import Store
from phaseb.training.loop import Report, read_progress, train
from phaseb.training.preemption import ask_to_leave
from phaseb.training.progress_file import following
from phaseb.training.resident import resident_group
from phaseb.training.worker import USERS, EndOnUsersError, Job, MakeLearner, train_once

LEAVE_S = 20.0
"""How long the workers may take to write a checkpoint when the driver is told to leave."""


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
        job = Job(make_learner, data, seed, key, store, training, name)
        if resources.num_workers == 0:
            _train_here(job, on_progress)
        else:
            _train_on_workers(job, resources, on_progress)
        done = read_progress(store, key)
    if done is None:
        raise PhasebError(f"training {name} ended without a checkpoint in {store.root}")
    state, progress = done
    return FitResult(state, progress.rows, progress.seconds)


def _train_here(job: Job, on_progress: Report | None) -> None:
    torch.set_num_threads(job.training.torch_threads)
    context = LearnerContext(job.seed)
    with signals.deferred() as told:
        learner, meters = job.make_learner(job.data, context), job.meters
        train(learner, context, job.training, job.store, job.key, on_progress or _silent, leaving=told, meters=meters)


def _train_on_workers(job: Job, resources: ResourcesConfig, on_progress: Report | None) -> None:
    resident = resident_group(resources)
    try:
        with following(job.store, on_progress):
            if resident is not None:
                resident.train(job)
            else:
                with _own_group(job, resources) as trainer:
                    trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error, job.name) from error
    except KeyboardInterrupt:
        if signals.given():
            logs.event("leaving", written=ask_to_leave(job.store, LEAVE_S))
        raise


@contextmanager
def _own_group(job: Job, resources: ResourcesConfig) -> Iterator[TorchTrainer]:
    """Workers for this training alone."""
    reference = ray.put(job)
    scratch = job.store.folder("train")  # Train's own bookkeeping; the checkpoints are ours: it is dropped at the end
    backend = None if resources.gpus_per_worker else "gloo"
    try:
        yield TorchTrainer(
            functools.partial(train_once, [reference], resources.num_workers),
            torch_config=TorchConfig(backend=backend, timeout_s=int(resources.collective_timeout_s)),
            scaling_config=scaling_config(resources),
            run_config=RunConfig(
                name=f"{job.name}-{uuid.uuid4().hex[:12]}",  # a name used before would silently resume that run
                storage_path=scratch.root,
                storage_filesystem=scratch.filesystem,
                failure_config=FailureConfig(max_failures=resources.max_failures, controller_failure_limit=3),
                callbacks=[EndOnUsersError()],
            ),
        )
    finally:
        job.store.delete("train")


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
