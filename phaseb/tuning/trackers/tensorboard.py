"""TensorBoard: `tensorboard --logdir <study>/tensorboard`, a run a trial, with its point under HPARAMS."""

import math
from collections.abc import Sequence
from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from phaseb.tuning.trackers.tracker import numbers, plain, trial_name
from phaseb.tuning.trial_store import TrialRecord


class TensorBoardTracker:
    """One event file a trial: its metrics over optimiser steps, its point and what it came to."""

    def __init__(self, study: str, folder: Path, metrics: Sequence[str]) -> None:
        self._folder, self._metrics = folder, metrics
        self._writers: dict[str, SummaryWriter] = {}

    def on_report(self, record: TrialRecord) -> None:
        writer = self._writer(record)
        for name, value in numbers(record).items():
            if math.isfinite(value):  # of another, tensorboardX prints a line
                writer.add_scalar(name, value, record.steps)

    def on_end(self, record: TrialRecord) -> None:
        writer = self._writer(record)
        known = {name: record.last[name] for name in self._metrics if name in record.last}
        for summary in hparams(plain(record) | {"state": record.state}, known):
            writer.file_writer.add_summary(summary)
        if record.reason:
            writer.add_text("reason", record.reason, record.steps)
        writer.close()
        del self._writers[record.key]

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _writer(self, record: TrialRecord) -> SummaryWriter:
        if record.key not in self._writers:
            self._writers[record.key] = SummaryWriter(str(self._folder / trial_name(record)))
        return self._writers[record.key]
