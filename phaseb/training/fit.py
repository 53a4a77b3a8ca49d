"""Train a learner: in this process (`resources.num_workers: 0`) or on Ray Train workers; groups of runs as Ray tasks.

Batches and noise are functions of (seed, step), and groups never exchange a number: wherever they train, they end in
the same policies.
"""

import functools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import ray
import torch
from ray.train import FailureConfig, RunConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from phaseb.config.run import ResourcesConfig, TrainingConfig
from phaseb.errors import ClusterError, PhasebError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime import logs, signals
from phaseb.runtime.ray_session import scaling_config
from phaseb.runtime.ray_tasks import get_result
from phaseb.runtime.storage import Store
from phaseb.training.loop import Report, read_progress, train
from phaseb.training.preemption import FILE, request_stop, stop_tasks, stopped_by_request
from phaseb.training.progress_file import poll_progress, publish_progress
from phaseb.training.worker import NON_RETRYABLE, FailFastCallback, Job, MakeLearner, train_once

STOP_S, GROUP_STOP_S = 20.0, 15.0
"""How long workers and groups may take to write a checkpoint when the run is stopped."""
Trained = TypeVar("Trained", covariant=True)


@dataclass(frozen=True)
class FitResult:
    """The end of a training: the learner's state, its metrics over steps, the seconds spent in steps."""

    state: dict[str, Any]
    rows: list[dict[str, float]]
    seconds: float

    @property
    def last(self) -> dict[str, float]:
        return self.rows[-1] if self.rows else {}


def fit(
    make_learner: MakeLearner,
    data: Any,
    *,
    seed: int,
    key: str,
    store: Store,
    training: TrainingConfig,
    resources: ResourcesConfig,
    name: str,
    on_progress: Report | None = None,
) -> FitResult:
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
        KeyboardInterrupt: this process was asked to stop; a checkpoint of that moment is written.
    """
    done = read_progress(store, key)
    if done is None or not done[1].complete:
        cpus = resources.cpus_per_worker if resources.num_workers else resources.cpus_per_task
        job = Job(make_learner, data, seed, key, store, training, name, threads=max(1, int(cpus)))
        if resources.num_workers == 0:
            _train_here(job, on_progress)
        else:
            _train_on_workers(job, resources, on_progress)
        done = read_progress(store, key)
    if done is None:
        raise PhasebError(f"training {name} ended without a checkpoint in {store.root}")
    state, progress = done
    return FitResult(state, progress.rows, progress.seconds)


class TrainGroup(Protocol[Trained]):
    """Trains the runs of one group. Sent to other processes, so a module-level function or a partial of one."""

    def __call__(self, group: int, report: Report) -> Trained: ...


def fit_groups(
    train: TrainGroup[Trained],
    stores: Sequence[Store],
    resources: ResourcesConfig,
    report: Report,
    max_concurrent: int | None = None,
) -> list[Trained]:
    """Train every group, up to `resources.num_tasks` at a time; in this process where that is one, or without Ray.

    Args:
        train: called with the number of a group.
        stores: where each group keeps its checkpoint.
        resources: what a task reserves.
        report: receives the metrics of the groups, with the steps of all.
        max_concurrent: groups at a time, where fewer than `resources.num_tasks`.

    Returns:
        what `train` returned, by group.

    Raises:
        PhasebError: the first error of a group; the others are stopped.
        KeyboardInterrupt: where this process was stopped; the groups have written a checkpoint.
    """
    progress = _JointProgress(len(stores), report)
    limit = min(resources.num_tasks, max_concurrent or len(stores))
    if resources.num_tasks == 1 or len(stores) == 1 or not ray.is_initialized():
        return [train(group, progress.of(group)) for group in range(len(stores))]
    task = ray.remote(_train_in_task).options(num_cpus=resources.cpus_per_task, max_retries=resources.max_failures)
    shared, waiting, found = ray.put(train), dict[Any, int](), dict[int, Trained]()
    with ExitStack() as polled, _stopped_on_error(waiting, stores):
        while waiting or len(found) < len(stores):
            begun = len(found) + len(waiting)
            if begun < len(stores) and len(waiting) < limit:
                stores[begun].delete(FILE)
                polled.enter_context(poll_progress(stores[begun], progress.of(begun)))
                waiting[task.remote(shared, begun, stores[begun])] = begun
                continue
            for reference in ray.wait(list(waiting), num_returns=1)[0]:
                group = waiting.pop(reference)
                found[group] = get_result(reference)
    return [found[group] for group in range(len(stores))]


def merge_rows(parts: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """The metrics of several trainings as those of one: a row a step with the metrics of all; seconds add up."""
    merged: dict[float, dict[str, float]] = {}
    for rows in parts:
        for row in rows:
            joint = merged.setdefault(row["step"], {})
            seconds = joint.get("seconds", 0.0) + row["seconds"]
            joint.update(row)
            joint["seconds"] = seconds
    return [merged[step] for step in sorted(merged)]


def _train_here(job: Job, on_progress: Report | None) -> None:
    torch.set_num_threads(job.threads)
    context, report = WorkerContext(job.seed), on_progress or _silent
    with signals.defer_shutdown() as requested:
        learner, meters = job.make_learner(job.data, context), job.meters
        train(learner, context, job.training, job.store, job.key, report, stop=requested, meters=meters)


def _train_on_workers(job: Job, resources: ResourcesConfig, on_progress: Report | None) -> None:
    try:
        with poll_progress(job.store, on_progress), _worker_group(job, resources) as trainer:
            trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error, job.name) from error
    except KeyboardInterrupt:
        if signals.shutdown_requested():
            logs.event("training stops", written=request_stop(job.store, STOP_S))
        raise


class _Trainer(TorchTrainer):
    """Leaves SIGINT alone: Ray Train's own handler aborts the workers, ours has them write a checkpoint first."""

    def _register_sigint_handler(self, controller: Any) -> None:
        return None


@contextmanager
def _worker_group(job: Job, resources: ResourcesConfig) -> Iterator[_Trainer]:
    """Ray Train workers for one training."""
    reference = ray.put(job)
    scratch = job.store.folder("train")  # Train's own bookkeeping; the checkpoints are ours: it is dropped at the end
    backend = None if resources.gpus_per_worker else "gloo"
    try:
        yield _Trainer(
            functools.partial(train_once, [reference], resources.num_workers),
            torch_config=TorchConfig(backend=backend, timeout_s=int(resources.collective_timeout_s)),
            scaling_config=scaling_config(resources),
            run_config=RunConfig(
                name=f"{job.name}-{uuid.uuid4().hex[:12]}",  # a name used before would silently resume that run
                storage_path=scratch.root,
                storage_filesystem=scratch.filesystem,
                failure_config=FailureConfig(max_failures=resources.max_failures, controller_failure_limit=3),
                callbacks=[FailFastCallback()],
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
        for kind in (*NON_RETRYABLE, PhasebError):
            if f"{kind.__name__}: " in line:
                return kind(line.split(f"{kind.__name__}: ", 1)[1].strip())
    return ClusterError(f"training {name} failed on its workers: {text.strip().splitlines()[-1]}")


def _silent(metrics: Mapping[str, float]) -> None:
    return None


def _train_in_task(train: TrainGroup[Trained], group: int, store: Store) -> Trained:
    torch.set_num_threads(1)
    with stopped_by_request(store), publish_progress(store) as report:
        return train(group, report)


@contextmanager
def _stopped_on_error(tasks: Mapping[Any, int], stores: Sequence[Store]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        stop_tasks(list(tasks), [(stores[group], FILE) for group in tasks.values()], GROUP_STOP_S)
        raise


class _JointProgress:
    """The progress of several trainings of as many steps as that of one."""

    def __init__(self, num_groups: int, report: Report) -> None:
        self._steps, self._report = [0.0] * num_groups, report

    def of(self, group: int) -> Report:
        return functools.partial(self._take, group)

    def _take(self, group: int, metrics: Mapping[str, float]) -> None:
        self._steps[group] = metrics["step"]
        self._report({**metrics, "step": float(sum(self._steps) // len(self._steps))})
