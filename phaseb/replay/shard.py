"""A shard of the buffer as a Ray actor: it outlives learners, and comes back with its data where it is killed."""

import os
import threading
import time
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.metrics import Counter, Gauge

from phaseb.config.replay import ReplayConfig
from phaseb.replay.block import Part
from phaseb.replay.durable import DurablePartition, Receipt
from phaseb.replay.journal import shard_folder
from phaseb.replay.plan import Request
from phaseb.replay.routing import Sizes
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import Segments
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.storage import Store

METRICS_INTERVAL_S = 2.0
Folder = str | Store | None


class ReplayShard:
    """See `DurablePartition`; a thread writes the snapshots and the metrics.

    Args:
        schema: the columns of a record.
        config: laws and intervals.
        index: of this shard.
        store: the folder where it writes, or None.
    """

    def __init__(self, schema: TransitionSchema, config: ReplayConfig, index: int, store: Store | None) -> None:
        self._partition = DurablePartition(schema, config, store)
        self._metrics = _Metrics(index)
        self._stopping = threading.Event()
        period = min(config.snapshot_interval_s, METRICS_INTERVAL_S)
        threading.Thread(target=self._tend, args=(period,), daemon=True, name="replay-snapshots").start()

    def insert(self, segments: Segments) -> Receipt:
        """At least once is enough: transitions that are held already are left out."""
        return self._partition.insert(segments)

    def set_weights(
        self, column: str, codes: NDArray[np.int64], steps: NDArray[np.int64], values: NDArray[np.float32]
    ) -> int:
        return self._partition.set_weights(column, codes, steps, values)

    def set_priorities(self, numbers: NDArray[np.int64], priorities: NDArray[np.float32]) -> int:
        return self._partition.set_priorities(numbers, priorities)

    @ray.method(max_task_retries=0)
    def sample(self, request: Request) -> Part:
        """Not tried again by Ray: the learner goes on with the other shards."""
        return self._partition.sample(request)

    @ray.method(max_task_retries=0)
    def masses(self, specs: tuple[SampleSpec, ...]) -> NDArray[np.float64]:
        return self._partition.partition.masses(specs)

    def status(self) -> dict[str, Any]:
        """Fill and counts, processor seconds, and where the shard is."""
        node = ray.get_runtime_context().get_node_id()
        return {**self._partition.status(), "cpu_s": time.process_time(), "pid": os.getpid(), "node": node}

    def snapshot(self) -> None:
        self._partition.snapshot()

    def sizes(self) -> Sizes:
        """(3, n): of every segment that is held its source, its episode's code and its rows."""
        return self._partition.partition.sizes()

    def export(self) -> Segments:
        """All that is held."""
        return self._partition.partition.export()

    def _tend(self, period_s: float) -> None:
        while not self._stopping.wait(period_s):
            self._partition.snapshot_if_due()
            self._metrics.update(self._partition.status())


class _Metrics:
    """What Prometheus scrapes of a shard."""

    def __init__(self, index: int) -> None:
        keys = ("shard",)
        self._tags = {"shard": str(index)}
        self._told = {"inserted": 0, "duplicates": 0, "evicted": 0}
        self._counters = {
            name: Counter(f"phaseb_replay_{name}_transitions", f"Transitions {name} by a replay shard.", keys)
            for name in self._told
        }
        self._held = Gauge("phaseb_replay_held_transitions", "Transitions that a replay shard holds.", keys)
        self._fill = Gauge("phaseb_replay_fill", "Share of a replay shard's capacity in use.", keys)

    def update(self, status: dict[str, Any]) -> None:
        for name, counter in self._counters.items():
            if status[name] > self._told[name]:
                counter.inc(status[name] - self._told[name], tags=self._tags)
                self._told[name] = status[name]
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
