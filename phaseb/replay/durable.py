"""A partition that outlives its process: what goes in is written down, and read back at the start."""

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.replay import ReplayConfig
from phaseb.errors import PhasebError
from phaseb.replay.block import Part
from phaseb.replay.journal import Journal, WeightChange
from phaseb.replay.limiter import Limiter
from phaseb.replay.partition import Partition
from phaseb.replay.plan import Request
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import Segments
from phaseb.runtime.storage import Store


@dataclass(frozen=True)
class Receipt:
    """What an insert did, and the shard's counts after it (over its whole life, restarts included)."""

    inserted: int
    duplicates: int
    evicted: int
    total_inserted: int
    num_transitions: int


class DurablePartition:
    """One shard: partition, limiter, journal and snapshots. All methods may be called from several threads.

    Args:
        schema: the columns of a record.
        config: laws and intervals.
        store: the shard's folder, or None where nothing is to be written.
    """

    def __init__(self, schema: TransitionSchema, config: ReplayConfig, store: Store | None) -> None:
        self.partition = Partition(schema, config)
        self.limiter = Limiter.of(config)
        self.counters = {"inserted": 0, "duplicates": 0, "evicted": 0}
        self.damaged: list[str] = []
        self._config = config
        self._lock = threading.RLock()
        self._journal = None if store is None else Journal(store, schema, config.num_snapshots)
        self._snapshot_s = time.monotonic()
        self._changes = 0
        self._saved_changes = 0
        if self._journal is not None:
            self._restore(self._journal)

    def insert(self, segments: Segments) -> Receipt:
        """Take segments in, and write them down before saying so. What was taken in before is left out."""
        with self._lock:
            self.partition.check(segments)
            self.limiter.before_insert(segments.num_transitions)
            fresh = self.partition.unknown(segments)
            if len(fresh):
                self._write_down(fresh)
            done = self.partition.insert(fresh, checked=True)
            duplicates = segments.num_transitions - fresh.num_transitions
            self._count(done.inserted, duplicates, done.evicted)
            return Receipt(
                done.inserted, duplicates, done.evicted, self.counters["inserted"], self.partition.num_transitions
            )

    def set_weights(
        self, column: str, codes: NDArray[np.int64], steps: NDArray[np.int64], values: NDArray[np.float32]
    ) -> int:
        """See `Partition.set_weights`; the change is written down."""
        with self._lock:
            found = self.partition.set_weights(column, codes, steps, values)
            self._write_down(WeightChange(column, codes, steps, np.asarray(values, dtype=np.float32)))
            return found

    def set_priorities(self, numbers: NDArray[np.int64], priorities: NDArray[np.float32]) -> int:
        """See `Partition.set_priorities`. Not written down: after a restart all priorities are alike."""
        with self._lock:
            return self.partition.set_priorities(numbers, priorities)

    def sample(self, request: Request) -> Part:
        """See `Partition.sample`; waits for nothing.

        Raises:
            LimitedError: where the limiter holds sampling back.
        """
        with self._lock:
            part = self.partition.sample(request)
            if self.limiter.ratio:
                self.limiter.before_sample(part.num_draws)
            return part

    def snapshot_if_due(self) -> None:
        """Take a snapshot where there is something new and the interval has passed. Storage that fails is told in
        `status`, and tried again after another interval."""
        changed = self._changes != self._saved_changes
        if not changed or time.monotonic() - self._snapshot_s < self._config.snapshot_interval_s:
            return
        try:
            self.snapshot()
        except PhasebError as error:
            self._snapshot_s = time.monotonic()
            self.damaged = [*self.damaged[-9:], f"no snapshot: {error}"]

    def snapshot(self) -> None:
        """Write all that is held to storage; sampling goes on while the files are written."""
        if self._journal is None:
            return
        with self._lock:
            changes = self._changes
            if not self._config.journal and changes != self._saved_changes:
                self._journal.last += 1  # a snapshot's name tells it from the one before
            last, held, counters = self._journal.last, self.partition.export(), dict(self.counters)
        self._journal.snapshot(held, counters, last)
        self._saved_changes = changes
        self._snapshot_s = time.monotonic()

    def status(self) -> dict[str, Any]:
        """Fill and counts."""
        return {
            **self.counters, **self.partition.status(), "sampled": self.limiter.sampled, "damaged": list(self.damaged),
        }  # fmt: skip

    def _write_down(self, entry: Segments | WeightChange) -> None:
        self._changes += 1
        if self._journal is not None and self._config.journal:
            self._journal.append(entry)

    def _count(self, inserted: int, duplicates: int, evicted: int) -> None:
        for name, count in (("inserted", inserted), ("duplicates", duplicates), ("evicted", evicted)):
            self.counters[name] += count
        self.limiter.after_insert(inserted)

    def _restore(self, journal: Journal) -> None:
        restored = journal.restore()
        self.damaged = restored.damaged
        self.counters.update(restored.counters)
        num_held = 0
        for entry in restored.entries:
            if isinstance(entry, WeightChange):
                self.partition.set_weights(entry.column, entry.codes, entry.steps, entry.values)
            else:
                num_held += self.partition.insert(entry).inserted
        # The snapshot's own rows are counted in its counters already.
        self.counters["inserted"] += num_held - restored.num_snapshot
        self.limiter.start_level(self.counters["inserted"])
