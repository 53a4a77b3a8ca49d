"""A group of Ray Train workers that stays and does one training after another, where starting one for each costs more.

On a Ray that the run starts for itself, and on processors, one group serves all its trainings. It reserves no CPU: it
works while nothing else of the run does, and waits, at no cost to anybody, while data are worked on. On a cluster that
others use too, and on GPUs, what waits would keep others waiting: there every training has a group of its own.
"""

import functools
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from phaseb.config.run import ResourcesConfig
from phaseb.errors import ClusterError
from phaseb.runtime.ray_session import ray_session
from phaseb.training.mailbox import open_mailbox
from phaseb.training.worker import EndOnUsersError, Job, train_whatever_comes

LOOK_S = 0.5
NO_ROOM = {"memory": 1}
"""A byte of each worker's: a placement group without any resource is none."""

_staying: list["ResidentGroup"] = []


@contextmanager
def training_session(resources: ResourcesConfig) -> Iterator[None]:
    """`ray_session` for whatever trains several times."""
    with ray_session(resources) as ours:
        if not (ours and may_stay(resources)):
            yield
            return
        with staying(resources):
            yield


@contextmanager
def staying(resources: ResourcesConfig) -> Iterator["ResidentGroup"]:
    """Within, one group does every `fit` that asks for these resources."""
    group = ResidentGroup(resources)
    _staying.append(group)
    try:
        yield group
    finally:
        _staying.remove(group)
        group.close()


def may_stay(resources: ResourcesConfig) -> bool:
    """Whether workers with these resources are of a kind that stays: a fixed number of them, on processors."""
    elastic = resources.min_workers is not None and resources.min_workers < resources.num_workers
    return resources.num_workers > 0 and not resources.gpus_per_worker and not elastic


def resident_group(resources: ResourcesConfig) -> "ResidentGroup | None":
    """The group that does trainings with these resources, where there is one."""
    return next((group for group in _staying if group.resources == resources), None)


class ResidentGroup:
    """Started by its first training, and again by the one that follows its end.

    Args:
        resources: how many workers, and how often one training may lose them.
    """

    def __init__(self, resources: ResourcesConfig) -> None:
        self.resources = resources
        self._mailbox: Any = None
        self._thread: threading.Thread | None = None
        self._number = 0
        self._failure: BaseException | None = None

    def train(self, job: Job) -> None:
        """Train to the end.

        Raises:
            DivergenceError, DataError, ConfigError: the user's.
            TrainingFailedError: the group ended.
        """
        self._start()
        assert self._thread is not None
        self._number += 1
        answer = self._mailbox.give.remote(self._number, [ray.put(job)])
        while not ray.wait([answer], timeout=LOOK_S)[0]:
            if not self._thread.is_alive():
                raise self._failure or ClusterError("the workers left")
        error = ray.get(answer)
        if error is not None:
            if self.resources.num_workers > 1:  # then the group ends with it
                self.close()
                self._thread = None
            raise error

    def close(self) -> None:
        """Let the workers go; does not wait for it."""
        if self._thread is not None and self._thread.is_alive():
            self._mailbox.close.remote()

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._mailbox, self._failure = open_mailbox(self.resources.max_failures), None
        self._thread = threading.Thread(target=self._run, args=(self._mailbox,), daemon=True, name="resident-group")
        self._thread.start()

    def _run(self, mailbox: Any) -> None:
        folder = tempfile.mkdtemp(prefix="phaseb-train-")  # Train's own bookkeeping; the checkpoints are ours
        try:
            _trainer(mailbox, self.resources, folder).fit()
        except (Exception, SystemExit) as error:  # noqa: BLE001  (told to who waits for a training)
            self._failure = error  # SystemExit: what Ray raises where it was shut down meanwhile
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class _LeanTrainer(TorchTrainer):
    """Without two helpers of Ray Train, each a process and seconds of imports: one hands out Ray datasets, of which a
    training here has none; one clears up after a controller that died on a cluster that lives on, where ours ends."""

    NEEDLESS = ("DatasetsCallback", "PlacementGroupCleanerCallback")

    def _create_default_callbacks(self) -> list[Any]:
        return [made for made in super()._create_default_callbacks() if type(made).__name__ not in self.NEEDLESS]


def _trainer(mailbox: Any, resources: ResourcesConfig, folder: str) -> TorchTrainer:
    return _LeanTrainer(
        functools.partial(train_whatever_comes, mailbox, resources.num_workers),
        torch_config=TorchConfig(backend="gloo", timeout_s=int(resources.collective_timeout_s)),
        scaling_config=ScalingConfig(num_workers=resources.num_workers, resources_per_worker=NO_ROOM),
        run_config=RunConfig(
            name=f"resident-{uuid.uuid4().hex[:12]}", storage_path=folder,
            failure_config=FailureConfig(max_failures=-1, controller_failure_limit=3),
            callbacks=[EndOnUsersError(mailbox)],
        ),
    )  # fmt: skip
