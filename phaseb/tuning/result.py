"""The end of a study: which point won once it was run again on fresh seeds, and the files that say so."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from phaseb import __version__
from phaseb.config.load import dump_config
from phaseb.runtime.storage import Store, to_jsonable
from phaseb.tuning.search import importances
from phaseb.tuning.space import Point, apply_point, defaults
from phaseb.tuning.trial_store import TrialStore, pareto_front, trial_key
from phaseb.tuning.validation import CheckedStudy

STATES = ("done", "stopped", "failed", "running")


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        best: the winning point; empty where the base config's own values won.
        searched: its metric in the search. `confirmed`: mean over fresh seeds, `base`: the base config's on the same
            seeds. The gap between the first two is the winner's curse.
        sealed: the winner's metric on the sealed test split, mean over the fresh seeds.
        front: for several metrics, the points that nothing beats.
    """

    name: str
    metric: str
    best: Point
    searched: float | None
    confirmed: float | None
    base: float | None
    sealed: float | None
    num_trials: dict[str, int]
    seconds: float
    path: str
    ended_by: str = ""
    importance: dict[str, float] = field(default_factory=dict)
    front: list[dict[str, Any]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One sentence: whether a better point than the base config's own values was found, and what it is worth."""
        value = self.searched if self.confirmed is None else self.confirmed
        found = f"{self.metric} {_text(value)}"
        if not self.best:
            return f"Nothing beat the base config's own values ({found})."
        base = "" if self.base is None else f", the base config's own values have {_text(self.base)}"
        seeds = "in the search, not run again on fresh seeds" if self.confirmed is None else "on fresh seeds"
        return f"A better point was found: {found} {seeds}{base}. best.yaml has it."

    def summary(self) -> dict[str, Any]:
        """As plain JSON."""
        return dict(to_jsonable(self.__dict__))


class Conclusion:
    """Compares the candidates on the runs that count, and writes `best.yaml` and `result.json`.

    Args:
        seeds: of the runs that count: the fresh ones, or the search's own where none were wanted.
    """

    def __init__(self, checked: CheckedStudy, records: TrialStore, store: Store, seeds: Sequence[int]) -> None:
        self._checked, self._study, self._records, self._store = checked, checked.study, records, store
        self._seeds, self._metric = seeds, checked.study.metrics[0]
        self._sign = 1 if self._metric.mode == "min" else -1

    def conclude(self, candidates: Sequence[Point], started: float, ended_by: str) -> StudyResult:
        """The result, written to the study's folder. `started` is of the monotonic clock."""
        found = min(candidates, key=lambda point: self._order(self._mean(point)))
        base = self._mean({})
        best = {} if math.isfinite(base) and self._order(base) <= self._order(self._mean(found)) else found
        search = self._records.phase("search")
        own = defaults(self._study.space, self._checked.config) or {}  # where the search tried the base config's values
        tried = self._records.get(trial_key(best or own, self._checked.config.run.seed))
        result = StudyResult(
            name=self._checked.name,
            metric=self._metric.name,
            best=best,
            searched=tried.last.get(self._metric.name) if tried else None,
            confirmed=_known(self._mean(best)) if self._study.confirm.top else None,
            base=_known(self._mean({})),
            sealed=_known(self._mean(best, f"test/{self._metric.name}")),
            num_trials={state: sum(r.state == state for r in search) for state in STATES},
            seconds=time.monotonic() - started,
            path=self._store.path("best.yaml"),
            ended_by=ended_by,
            importance=importances(self._study, search),
            front=self._front(),
        )
        self._write(result)
        return result

    def _order(self, value: float) -> float:
        return self._sign * value if math.isfinite(value) else math.inf

    def _mean(self, point: Point, name: str = "") -> float:
        """The mean of a metric over a point's runs that count; NaN without any."""
        name = name or self._metric.name
        records = [self._records.get(trial_key(point, seed)) for seed in self._seeds]
        values = [record.last[name] for record in records if record and record.last.get(name) is not None]
        return float(np.mean(values)) if values else float("nan")

    def _front(self) -> list[dict[str, Any]]:
        if len(self._study.metrics) == 1:
            return []
        front = pareto_front(self._records.phase("search"), self._study.metrics)
        return [{"point": r.point, **{m.name: r.last[m.name] for m in self._study.metrics}} for r in front]

    def _write(self, result: StudyResult) -> None:
        config = apply_point(self._checked.base, result.best)
        home = f"{self._checked.base.run.dir.rstrip('/')}-{self._checked.name}"
        config = config.model_copy(update={"run": config.run.model_copy(update={"dir": home})})
        head = [
            f"# Found by study {result.name}, phaseb {__version__}.",
            f"# {result.metric}: {_text(result.searched)} in the search,",
            f"# {_text(result.confirmed)} on fresh seeds; the base config's own values have {_text(result.base)}.",
            f"# Run it:  phaseb run --config {result.path}",
            *(f"#   {name}: {value}" for name, value in result.best.items()),
        ]
        self._store.write_text("\n".join(head) + "\n" + dump_config(config), "best.yaml")
        self._store.write_json(result.summary(), "result.json")


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
