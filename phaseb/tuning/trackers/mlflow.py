"""MLflow: an experiment a study, a run a trial; in `<study>/mlflow`, or where MLFLOW_TRACKING_URI says."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from phaseb.tuning.trackers.tracker import numbers, plain, trial_name
from phaseb.tuning.trial_store import TrialRecord

STATUS = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowTracker:
    """Keeps runs through MLflow's client; local files need no server."""

    def __init__(self, study: str, folder: Path, metrics: Sequence[str]) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow asks whether files are really meant
            uri = folder.resolve().as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(study)
        self._experiment = found.experiment_id if found else self._client.create_experiment(study)
        self._runs: dict[str, str] = {}

    def on_report(self, record: TrialRecord) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, record.steps) for name, value in numbers(record).items()]
        self._client.log_batch(self._run(record), metrics=metrics)

    def on_end(self, record: TrialRecord) -> None:
        run = self._run(record)
        tags = [RunTag("state", record.state), *([RunTag("reason", record.reason)] if record.reason else [])]
        self._client.log_batch(run, tags=tags)
        self._client.set_terminated(run, STATUS[record.state])
        del self._runs[record.key]

    def close(self) -> None:
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")

    def _run(self, record: TrialRecord) -> str:
        if record.key not in self._runs:
            tags = {"phase": record.phase, "key": record.key}
            run = self._client.create_run(self._experiment, run_name=trial_name(record), tags=tags)
            params = [Param(name, str(value)) for name, value in plain(record).items()]
            self._client.log_batch(run.info.run_id, params=params)
            self._runs[record.key] = run.info.run_id
        return self._runs[record.key]
