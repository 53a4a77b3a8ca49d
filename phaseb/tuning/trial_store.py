"""What is known of every trial, one small file each: enough to go on from, nothing to unpickle."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from phaseb.config.tuning import Metric
from phaseb.errors import DataError
from phaseb.runtime.storage import Store, to_jsonable

State = Literal["running", "done", "stopped", "failed"]


@dataclass
class TrialRecord:
    """One trial: a point, a seed, and what came of them.

    Attributes:
        state: `stopped` was ended early by the scheduler or a budget, `failed` diverged or broke, with its reason.
        rows: metrics by report, each with `steps`.
        phase: `search`, or `confirm` for a run of a good point on a fresh seed.
        parent: of a population's member, `key@turn` of the one whose weights it began with.
        replaces: key of the member that it followed.
    """

    key: str
    point: dict[str, Any]
    seed: int
    phase: str = "search"
    number: int = 0
    state: State = "running"
    reason: str = ""
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    parent: str = ""
    replaces: str = ""

    @property
    def last(self) -> dict[str, float]:
        return self.rows[-1] if self.rows else {}

    @property
    def steps(self) -> int:
        return int(self.last.get("steps", 0))

    @property
    def ended(self) -> bool:
        return self.state != "running"


class TrialStore:
    """The records of a study, in its folder; written by the driver alone.

    Raises:
        DataError: where a file there is not a trial of this version.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known = {record.key: record for record in map(self._read, store.names(suffix=".json"))}

    def get(self, key: str) -> TrialRecord | None:
        return self._known.get(key)

    def all(self) -> list[TrialRecord]:
        return sorted(self._known.values(), key=lambda r: r.number)

    def phase(self, phase: str) -> list[TrialRecord]:
        return [record for record in self.all() if record.phase == phase]

    def put(self, record: TrialRecord) -> None:
        """Keep a record, on disk too."""
        if record.key not in self._known:
            record.number = len(self._known)
        self._known[record.key] = record
        self._store.write_json(to_jsonable(asdict(record)), f"{record.key}.json")

    def _read(self, name: str) -> TrialRecord:
        tree = self._store.read_json(name)
        try:
            return TrialRecord(**tree)
        except TypeError as error:
            raise DataError(f"{self._store.path(name)} is not a trial of this version: {error}") from error


def trial_key(point: Mapping[str, Any], seed: int) -> str:
    """A name for a point under a seed, the same whenever it is tried."""
    text = json.dumps([sorted(point.items()), seed], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def best_trials(records: Iterable[TrialRecord], metric: Metric) -> list[TrialRecord]:
    """Trials that reached their end, the best first; where none did, the ones that got furthest."""
    alive = [r for r in records if r.state in ("done", "stopped") and _finite(r.last.get(metric.name))]
    furthest = max((r.steps for r in alive), default=0)
    sign = 1 if metric.mode == "min" else -1
    return sorted((r for r in alive if r.steps == furthest), key=lambda r: sign * r.last[metric.name])


def pareto_front(records: Iterable[TrialRecord], metrics: list[Metric]) -> list[TrialRecord]:
    """Finished trials that no other finished trial beats in every metric."""
    ended = [r for r in records if r.state == "done" and all(_finite(r.last.get(m.name)) for m in metrics)]
    signs = [1 if m.mode == "min" else -1 for m in metrics]
    values = {r.key: [s * r.last[m.name] for s, m in zip(signs, metrics, strict=True)] for r in ended}

    def beaten(one: TrialRecord) -> bool:
        mine = values[one.key]
        return any(all(b <= a for a, b in zip(mine, other, strict=True)) and other != mine for other in values.values())

    front = [r for r in ended if not beaten(r)]
    return sorted(front, key=lambda r: values[r.key])


def _finite(value: float | None) -> bool:
    return value is not None and value == value and abs(value) != float("inf")
