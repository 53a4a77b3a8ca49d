"""Weights & Biases: a group a study, a run a trial; offline, in `<study>/wandb`, unless WANDB_MODE says otherwise.

`wandb sync <study>/wandb/wandb/offline-run-*` sends them later.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb

from phaseb.tuning.trackers.tracker import numbers, plain, trial_name
from phaseb.tuning.trial_store import TrialRecord


class WandbTracker:
    """Keeps runs through wandb's own client. Starting one takes about a second of the driver's time."""

    def __init__(self, study: str, folder: Path, metrics: Sequence[str]) -> None:
        self._study, self._folder = study, folder
        self._mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._runs: dict[str, Any] = {}

    def on_report(self, record: TrialRecord) -> None:
        self._run(record).log(numbers(record), step=record.steps)

    def on_end(self, record: TrialRecord) -> None:
        run = self._run(record)
        run.summary["state"] = record.state
        if record.reason:
            run.summary["reason"] = record.reason
        run.finish(exit_code=int(record.state == "failed"))
        del self._runs[record.key]

    def close(self) -> None:
        for run in self._runs.values():
            run.finish(exit_code=1)
        wandb.teardown()  # its service writes the last lines now; the files are complete when this returns

    def _run(self, record: TrialRecord) -> Any:
        if record.key not in self._runs:
            self._runs[record.key] = wandb.init(
                project="phaseb",
                group=self._study,
                name=trial_name(record),
                job_type=record.phase,
                config=plain(record),
                dir=str(self._folder),
                mode=self._mode,
                reinit="create_new",
                settings=wandb.Settings(
                    silent=True, console="off", x_disable_stats=True, disable_git=True, x_disable_meta=True
                ),
            )
        return self._runs[record.key]
