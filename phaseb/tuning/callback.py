"""The driver's own ears during a search: writes each trial's record as it grows, and drops what need not be kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ray.tune import Callback
from ray.tune.experiment import Trial

from phaseb.config.tuning import StudyConfig
from phaseb.runtime.storage import Store
from phaseb.tuning.early_stopping import Budget
from phaseb.tuning.trial import SEED, UNTIL, point_of
from phaseb.tuning.trial_store import TrialRecord, TrialStore, best_trials, trial_key

ERROR_FILE = "error.txt"
UNREACHABLE = "is unavailable"  # so says Ray of an actor whose node does not answer; of a dead one, that it died


class Watcher(Protocol):
    """Someone who is told of every report and every end."""

    def on_report(self, record: TrialRecord) -> None: ...

    def on_end(self, record: TrialRecord) -> None: ...


def _reason(trial: Trial) -> str:
    """The last line of what a broken trial said; Tune keeps it in a file beside the trial."""
    error = trial.get_error()
    text = str(error) if error else ""
    local = Path(trial.local_path or ".") / ERROR_FILE
    if not text and local.exists():
        text = local.read_text(encoding="utf-8", errors="replace")
    return (text.strip().splitlines() or ["lost its process"])[-1]


class Recorder(Callback):
    """Keeps the records of one phase of a study up to date.

    Args:
        checkpoints: folder of the trials' own checkpoints; those of the best few ended trials stay.
        metrics: names to keep of what trials report.
        num_steps: of a whole trial; one that ended before was stopped.
    """

    def __init__(
        self,
        study: StudyConfig,
        records: TrialStore,
        phase: str,
        checkpoints: Store,
        metrics: Sequence[str],
        num_steps: int,
        watchers: Sequence[Watcher],
        budget: Budget | None = None,
    ) -> None:
        self._study, self._records, self.phase, self._checkpoints = study, records, phase, checkpoints
        self._kept = (*metrics, *(f"test/{m}" for m in metrics), "steps", "seconds", "seconds_measuring")
        self._before_s: dict[str, float] = {}
        self._num_steps, self._watchers, self.budget = num_steps, watchers, budget

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a resume of its own, which is never used

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        record = self._record(trial)
        self._before_s.setdefault(trial.trial_id, record.seconds if UNTIL in trial.config else 0.0)
        self._records.put(record)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Mapping[str, Any], **info: Any
    ) -> None:
        record = self._record(trial)
        if failure := result.get("failed"):
            record.reason = str(failure)
        else:
            record.rows = [row for row in record.rows if row["steps"] < result["steps"]]
            record.rows.append({name: float(result[name]) for name in self._kept if result.get(name) is not None})
        record.seconds = self._before_s.get(trial.trial_id, 0.0) + float(result["time_total_s"])
        self._records.put(record)
        for watcher in self._watchers:
            watcher.on_report(record)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        record = self._record(trial)
        self._before_s.pop(trial.trial_id, None)
        # Tune keeps every trial that ever was; most of that are running means of its metrics, which nobody reads.
        trial.run_metadata.metric_n_steps.clear()
        trial.run_metadata.metric_analysis.clear()
        if record.reason:
            record.state = "failed"
        elif record.steps < self._num_steps and UNTIL in trial.config:
            return  # a stretch of a member, which goes on
        else:
            record.state = "done" if record.steps >= self._num_steps else "stopped"
        self.end(record)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        record, reason = self._record(trial), _reason(trial)
        if UNREACHABLE in reason:  # its node went before it could begin, which Tune does not forgive: to be tried again
            self._records.put(record)
            return
        record.state, record.reason = "failed", reason
        self.end(record)

    def end(self, record: TrialRecord) -> None:
        """A trial ended as its record says: keep it, tell of it, drop checkpoints that are no longer among the best."""
        self._records.put(record)
        keep = {r.key for r in best_trials(self._records.phase(self.phase), self._study.metrics[0])[: self._kept_num()]}
        for name in self._checkpoints.folders():
            known = self._records.get(name)
            if known is not None and known.ended and name not in keep:
                self._checkpoints.delete(name)
        if self.budget is not None:
            self.budget.ended(record.last)
        for watcher in self._watchers:
            watcher.on_end(record)

    def _kept_num(self) -> int:
        return self._study.keep_checkpoints

    def _record(self, trial: Trial) -> TrialRecord:
        point = point_of(trial.config)
        seed = int(trial.config[SEED])
        key = trial_key(point, seed)
        return self._records.get(key) or TrialRecord(key, point, seed, self.phase)
