"""A shard of the buffer as a Ray actor: it outlives learners, and comes back with its data where it is killed."""

import os
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.metrics import Counter, Gauge

from phaseb.config.policy import ReplayConfig
from phaseb.errors import PhasebError
from phaseb.replay.assembly import ShardBatch
from phaseb.replay.journal import Journal, WeightChange, shard_folder
from phaseb.replay.partition import Partition
from phaseb.replay.plan import SampleRequest
from phaseb.replay.ring import InsertCounts
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import Segments
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.storage import Store

SNAPSHOT_INTERVAL_S = 60.0
"""Seconds between snapshots of a shard, after which the journal before them is dropped."""


@dataclass(frozen=True)
class InsertResult:
    """What an insert did, and what the shard took in over its whole life, restarts included."""

    done: InsertCounts
    total_inserted: int


class DurablePartition:
    """One shard: partition, journal and snapshots. All methods may be called from several threads.

    Args:
        schema: the columns of a record.
        config: capacity.
        store: the shard's folder, or None where nothing is to be written.
    """

    def __init__(self, schema: TransitionSchema, config: ReplayConfig, store: Store | None) -> None:
        self.partition = Partition(schema, config)
        self.counters = {"inserted": 0, "duplicates": 0, "evicted": 0}
        self.damaged: list[str] = []
        self._lock = threading.RLock()
        self._journal = None if store is None else Journal(store, schema)
        self._snapshot_s = time.monotonic()
        self._changes = 0
        self._saved_changes = 0
        if self._journal is not None:
            self._restore(self._journal)

    def insert(self, segments: Segments) -> InsertResult:
        """Take segments in, and write them down before saying so. What was taken in before is left out."""
        with self._lock:
            self.partition.check(segments)
            fresh = self.partition.unknown(segments)
            if len(fresh):
                self._write_down(fresh)
            done = self.partition.insert(fresh, checked=True)
            duplicates = segments.num_transitions - fresh.num_transitions
            self._count(done.inserted, duplicates, done.evicted)
            return InsertResult(InsertCounts(done.inserted, duplicates, done.evicted), self.counters["inserted"])

    def set_weights(
        self, column: str, codes: NDArray[np.int64], steps: NDArray[np.int64], values: NDArray[np.float32]
    ) -> int:
        """See `Partition.set_weights`; the change is written down."""
        with self._lock:
            found = self.partition.set_weights(column, codes, steps, values)
            self._write_down(WeightChange(column, codes, steps, np.asarray(values, dtype=np.float32)))
            return found

    def sample(self, request: SampleRequest) -> ShardBatch:
        """See `Partition.sample`."""
        with self._lock:
            return self.partition.sample(request)

    def snapshot_if_due(self) -> None:
        """Take a snapshot where there is something new and the interval has passed. Storage that fails is told in
        `status`, and tried again after another interval."""
        changed = self._changes != self._saved_changes
        if not changed or time.monotonic() - self._snapshot_s < SNAPSHOT_INTERVAL_S:
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
            last, held, counters = self._journal.last, self.partition.export(), dict(self.counters)
        self._journal.snapshot(held, counters, last)
        self._saved_changes = changes
        self._snapshot_s = time.monotonic()

    def status(self) -> dict[str, Any]:
        """Fill and counts."""
        return {**self.counters, **self.partition.status(), "damaged": list(self.damaged)}

    def _write_down(self, entry: Segments | WeightChange) -> None:
        self._changes += 1
        if self._journal is not None:
            self._journal.append(entry)

    def _count(self, inserted: int, duplicates: int, evicted: int) -> None:
        for name, count in (("inserted", inserted), ("duplicates", duplicates), ("evicted", evicted)):
            self.counters[name] += count

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


METRICS_INTERVAL_S = 2.0
Folder = str | Store | None


class ReplayShard:
    """See `DurablePartition`; a thread writes the snapshots and the metrics.

    Args:
        schema: the columns of a record.
        config: capacity.
        index: of this shard.
        store: the folder where it writes, or None.
    """

    def __init__(self, schema: TransitionSchema, config: ReplayConfig, index: int, store: Store | None) -> None:
        self._partition = DurablePartition(schema, config, store)
        self._metrics = _Metrics(index)
        self._stopping = threading.Event()
        threading.Thread(target=self._background_loop, daemon=True, name="replay-snapshots").start()

    def insert(self, segments: Segments) -> InsertResult:
        """At least once is enough: transitions that are held already are left out."""
        return self._partition.insert(segments)

    def set_weights(
        self, column: str, codes: NDArray[np.int64], steps: NDArray[np.int64], values: NDArray[np.float32]
    ) -> int:
        return self._partition.set_weights(column, codes, steps, values)

    @ray.method(max_task_retries=0)
    def sample(self, request: SampleRequest) -> ShardBatch:
        """Not tried again by Ray: the learner goes on with the other shards."""
        return self._partition.sample(request)

    @ray.method(max_task_retries=0)
    def masses(self, specs: tuple[SampleSpec, ...]) -> NDArray[np.float64]:
        return self._partition.partition.masses(specs)

    def status(self) -> dict[str, Any]:
        """Fill and counts, processor seconds, and where the shard is."""
        node = ray.get_runtime_context().get_node_id()
        return {**self._partition.status(), "cpu_s": time.process_time(), "pid": os.getpid(), "node": node}

    def _background_loop(self) -> None:
        while not self._stopping.wait(METRICS_INTERVAL_S):
            self._partition.snapshot_if_due()
            self._metrics.update(self._partition.status())


class _Metrics:
    """What Prometheus scrapes of a shard."""

    def __init__(self, index: int) -> None:
        keys = ("shard",)
        self._tags = {"shard": str(index)}
        self._summary = {"inserted": 0, "duplicates": 0, "evicted": 0}
        self._counters = {
            name: Counter(f"phaseb_replay_{name}_transitions", f"Transitions {name} by a replay shard.", keys)
            for name in self._summary
        }
        self._held = Gauge("phaseb_replay_held_transitions", "Transitions that a replay shard holds.", keys)
        self._fill = Gauge("phaseb_replay_fill", "Share of a replay shard's capacity in use.", keys)

    def update(self, status: dict[str, Any]) -> None:
        for name, counter in self._counters.items():
            if status[name] > self._summary[name]:
                counter.inc(status[name] - self._summary[name], tags=self._tags)
                self._summary[name] = status[name]
        self._held.set(status["num_transitions"], tags=self._tags)
        self._fill.set(status["fill"], tags=self._tags)


def start_shards(schema: TransitionSchema, config: ReplayConfig, folder: Folder) -> list[Any]:
    """`config.num_shards` shards, spread over the nodes, each writing to its own folder under `folder`."""
    actor = ReplayShardActor.options(
        num_cpus=config.shard_cpus, scheduling_strategy="SPREAD", max_restarts=-1, max_task_retries=-1
    )
    root = None if folder is None else Store.of(folder)
    stores = [None if root is None else root.folder(shard_folder(k)) for k in range(config.num_shards)]
    return [actor.remote(schema, config, k, store) for k, store in enumerate(stores)]


def wait_until_up(shards: list[Any], timeout_s: float) -> None:
    """Return when all shards have read back what they had.

    Raises:
        ray.exceptions.GetTimeoutError: where one has not after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    ray.get([shard.status.remote() for shard in shards], timeout=max(0.1, deadline - time.monotonic()))


ReplayShardActor = ray.remote(ReplayShard)
