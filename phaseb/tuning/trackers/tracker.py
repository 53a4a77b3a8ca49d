"""What a tracker is, which there are, and where on this machine their files go."""

import importlib
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol

from pyarrow import fs

from phaseb.config.tuning import StudyConfig
from phaseb.runtime.plugins import load_plugin
from phaseb.runtime.storage import Store
from phaseb.tuning.trial_store import TrialRecord

KINDS = {
    "tensorboard": ("tensorboardX", "phaseb.tuning.trackers.tensorboard:TensorBoardTracker"),
    "csv": ("csv", "phaseb.tuning.trackers.table:TableTracker"),
    "mlflow": ("mlflow", "phaseb.tuning.trackers.mlflow:MlflowTracker"),
    "wandb": ("wandb", "phaseb.tuning.trackers.wandb:WandbTracker"),
}
"""Name in a study: the module that it needs, and the class here."""


class Tracker(Protocol):
    """Someone beside the records who keeps what trials report; told by the driver, in the order in which it happens.

    Made with the study's name, a local folder of its own for its files, and the metrics' names.
    """

    def on_report(self, record: TrialRecord) -> None:
        """A trial reported; its newest row is `record.last`."""

    def on_end(self, record: TrialRecord) -> None:
        """A trial ended; `record.state` says how."""

    def close(self) -> None:
        """Nothing more comes."""


def missing(study: StudyConfig) -> list[str]:
    """What is wrong with the trackers that a study names: packages that are not installed here."""
    faults = []
    for name in study.trackers:
        module = KINDS[name][0]
        try:
            importlib.import_module(module)
        except ImportError:
            faults.append(f"trackers: {name} is not installed here: pip install 'phaseb[{name}]', or leave it out")
    return faults


class Trackers:
    """The trackers of a study; a context manager. Files go into `<study>/<tracker>/`.

    Trackers write to local disks; where a study lies elsewhere their files are copied there at the end.
    """

    def __init__(self, study: StudyConfig, name: str, store: Store) -> None:
        self._study, self._name, self._store = study, name, store
        self._trackers: list[Tracker] = []
        self._open = ExitStack()

    def __enter__(self) -> "Trackers":
        for kind in self._study.trackers:
            tracker = load_plugin(KINDS[kind][1], "trackers")(
                self._name, self._folder(kind), [m.name for m in self._study.metrics]
            )
            self._open.callback(tracker.close)  # before the files are copied
            self._trackers.append(tracker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def on_report(self, record: TrialRecord) -> None:
        for tracker in self._trackers:
            tracker.on_report(record)

    def on_end(self, record: TrialRecord) -> None:
        for tracker in self._trackers:
            tracker.on_end(record)

    def _folder(self, kind: str) -> Path:
        there = self._store.folder(kind)
        if self._store.is_local:
            here = Path(there.root)
            here.mkdir(parents=True, exist_ok=True)
            return here
        scratch = self._open.enter_context(tempfile.TemporaryDirectory(prefix=f"phaseb-{kind}-"))
        self._open.callback(_copy, scratch, there)
        return Path(scratch)


def _copy(folder: str, there: Store) -> None:
    there.filesystem.create_dir(there.root, recursive=True)
    fs.copy_files(folder, there.root, source_filesystem=fs.LocalFileSystem(), destination_filesystem=there.filesystem)


def trial_name(record: TrialRecord) -> str:
    return f"{record.phase}-{record.number + 1:05d}-{record.key}"


def plain(record: TrialRecord) -> dict[str, str | float | bool]:
    """A trial's point and seed as what every tracker can hold."""
    point = {n: v if isinstance(v, (bool, int, float, str)) else str(v) for n, v in record.point.items()}
    return {**point, "seed": record.seed}


def numbers(record: TrialRecord, left_out: Sequence[str] = ("steps",)) -> dict[str, float]:
    return {name: value for name, value in record.last.items() if name not in left_out}
