"""Train a learner where the config says: in this process (`resources.num_workers: 0`) or on Ray Train workers."""

import functools
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from phaseb.config.resources import ResourcesConfig
from phaseb.config.run import TrainingConfig
from phaseb.data_parallel import LearnerContext
from phaseb.errors import ClusterError, DataError, DivergenceError, PhasebError
from phaseb.runtime import scaling_config
from phaseb.storage import Store
from phaseb.training.learner import Learner
from phaseb.training.loop import Progress, Report, read_progress, train
from phaseb.training.progress import announcing, following

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
    """
    done = read_progress(store, key)
    if done is None or not done[1].complete:
        if resources.num_workers == 0:
            _train_here(make_learner, data, seed, key, store, training, on_progress)
        else:
            _train_on_workers(make_learner, data, seed, key, store, training, resources, name, on_progress)
        done = read_progress(store, key)
    if done is None:
        raise PhasebError(f"training {name} ended without a checkpoint in {store.root}")
    state, progress = done
    return FitResult(state, progress.rows, progress.seconds)


def _train_here(make_learner: MakeLearner, data: Any, seed: int, key: str, store: Store, training: TrainingConfig,
                on_progress: Report | None) -> Progress:  # fmt: skip
    torch.set_num_threads(training.torch_threads)
    context = LearnerContext(seed)
    return train(make_learner(data, context), context, training, store, key, on_progress or _silent)


def _train_on_workers(make_learner: MakeLearner, data: Any, seed: int, key: str, store: Store,
                      training: TrainingConfig, resources: ResourcesConfig, name: str,
                      on_progress: Report | None) -> None:  # fmt: skip
    reference = ray.put(data)
    loop = functools.partial(_worker_loop, make_learner, [reference], seed, key, store, training)
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
        ),
    )
    try:
        with following(store, on_progress):
            trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error, name) from error
    finally:
        store.delete("train")


def _worker_loop(make_learner: MakeLearner, references: list[Any], seed: int, key: str, store: Store,
                 training: TrainingConfig) -> None:  # fmt: skip
    torch.set_num_threads(training.torch_threads)
    worker = ray.train.get_context()
    context = LearnerContext(seed, worker.get_world_rank(), worker.get_world_size(), get_device())
    learner = make_learner(ray.get(references[0]), context)
    announce = announcing(store) if context.rank == 0 else _silent
    train(learner, context, training, store, key, announce)


def _cause(error: Exception, name: str) -> PhasebError:
    """The user's error that ended the workers, where there is one; else what Ray says, as the cluster's failure."""
    text = str(error)
    for line in reversed(text.splitlines()):
        for kind in (DivergenceError, DataError, PhasebError):
            if f"{kind.__name__}: " in line:
                return kind(line.split(f"{kind.__name__}: ", 1)[1].strip())
    return ClusterError(f"training {name} failed on its workers: {text.strip().splitlines()[-1]}")


def _silent(metrics: Mapping[str, float]) -> None:
    return None
