"""Batches from shards on a cluster: many a call, fetched ahead, from whichever shards are up."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError
from ray.util.metrics import Counter, Gauge

from phaseb.config.policy import ReplayConfig
from phaseb.errors import ClusterError
from phaseb.replay.accounting import SamplingStats
from phaseb.replay.assembly import BufferPool, ShardBatch, assemble
from phaseb.replay.plan import COUNT, NUM_TOTALS, Plan, SampleRequest, check_specs, make_plan, make_requests
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import require_transitions
from phaseb.replay.spec import BatchShape, SampleSpec
from phaseb.replay.stratum import StaleWindowError

DOWN = (RayActorError, ObjectLostError, GetTimeoutError)
PREFETCH_DEPTH = 2
"""Calls that a learner keeps in flight ahead of its need."""
CALL_TIMEOUT_S = 120.0
"""Seconds after which a silent shard counts as down."""
RETRY_INTERVAL_S = 1.0
"""Seconds between looks at a shard that was down."""
REFRESH_INTERVAL_S = 5.0
"""Seconds between a learner's looks at what the shards hold."""
METRICS_INTERVAL_S = 2.0
Batches = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class _Call:
    """Batches on their way."""

    step: int
    num_batches: int
    requests: dict[int, SampleRequest]
    results: dict[int, Any]
    plan: Plan


class _RetryError(Exception):
    """What was asked for must be asked for anew: the shards are not what they were."""


class RemoteSource:
    """A `BatchSource` over shards in Ray actors.

    Batches depend on (specs, step, what the shards hold) alone: not on timing, prefetch or how calls are cut. A shard
    that does not answer is left out, its part of the batches drawn from the others, until it answers again.

    Attributes:
        accounting: the books of what was handed over.
        wait_s: seconds that the caller waited in `sample`, of `since_s` since the first call.
        num_failures: times that a shard was found down.
    """

    def __init__(
        self,
        schema: TransitionSchema,
        config: ReplayConfig,
        shards: Sequence[Any],
        specs: tuple[SampleSpec, ...],
        shape: BatchShape,
        gamma: float,
    ) -> None:
        check_specs(specs, schema)
        self._schema, self._config, self._shards = schema, config, list(shards)
        self._specs, self._shape, self._gamma = specs, shape, gamma
        self._ahead: deque[_Call] = deque()
        self._plan: Plan | None = None
        self._masses = np.zeros((len(shards), len(specs), 2, NUM_TOTALS))
        self._down: set[int] = set(range(len(shards)))  # until they have told their masses
        self._polls: dict[int, Any] = {}
        self._next_poll_s = 0.0
        self._expired = False
        self._metrics = _Metrics()
        self._started_s: float | None = None
        self._pool = BufferPool()
        self.accounting = SamplingStats(specs)
        self.wait_s = 0.0
        self.num_failures = 0

    def sample(self, step: int, num_batches: int) -> Batches:
        """The batches of steps `step` … `step + num_batches − 1`; see `BatchSource`. Arrays are read-only.

        Calls for the steps that follow, of the same size, are sent before this one is waited for.

        Raises:
            DataError: empty shards, or a batch larger than the real stratum.
            ClusterError: where no shard answers for CALL_TIMEOUT_S.
        """
        begin_s = time.monotonic()
        self._started_s = begin_s if self._started_s is None else self._started_s
        if self._expired:
            self.refresh()
        self._poll(begin_s)
        if self._ahead and (self._ahead[0].step, self._ahead[0].num_batches) != (step, num_batches):
            self._ahead.clear()
        call, parts = self._fetch(step, num_batches)
        self.wait_s += time.monotonic() - begin_s
        request = next(iter(call.requests.values()))
        batch = assemble(self._schema, request, parts, call.plan.windows, self._pool)
        self.accounting.add(step, num_batches, [part.stats for part in parts.values()], batch)
        self._metrics.update(self, len(self._ahead))
        return batch

    def batches(self, first_step: int, batches_per_call: int) -> Iterator[Batches]:
        """Batches without end, `batches_per_call` at a time, from a step on."""
        step = first_step
        while True:
            yield self.sample(step, batches_per_call)
            step += batches_per_call

    @property
    def since_s(self) -> float:
        """Seconds since the first call."""
        return 0.0 if self._started_s is None else time.monotonic() - self._started_s

    @property
    def wait_fraction(self) -> float:
        """Share of the time since the first call that the caller spent waiting for data."""
        return self.wait_s / max(self.since_s, 1e-9)

    @property
    def queue_depth(self) -> int:
        """Calls that are in flight ahead of the learner."""
        return len(self._ahead)

    def refresh(self) -> None:
        """Look at what the shards hold now (it is looked at every REFRESH_INTERVAL_S anyhow)."""
        self._polls.clear()  # asked before now: what they say is older than what is learned here
        calls = {k: shard.masses.remote(self._specs) for k, shard in enumerate(self._shards)}
        for k, call in calls.items():
            self._learn(k, call, CALL_TIMEOUT_S)
        self._ahead.clear()
        self._plan = None
        self._expired = False

    def invalidate(self) -> None:
        """What the shards hold has changed: look at it before the next batch."""
        self._expired = True

    def _fetch(self, step: int, num_batches: int) -> tuple[_Call, dict[int, ShardBatch]]:
        while True:
            try:
                if not self._ahead:
                    self._ahead.append(self._send(step, num_batches))
                for k in range(len(self._ahead), PREFETCH_DEPTH + 1):
                    self._ahead.append(self._send(step + k * num_batches, num_batches))
                call = self._ahead.popleft()
                return call, self._collect(call)
            except _RetryError:
                self._ahead.clear()

    def _send(self, step: int, num_batches: int) -> _Call:
        plan = self._current_plan()
        requests = make_requests(plan, self._specs, self._shape, step, num_batches, self._gamma)
        results = {k: self._shards[k].sample.remote(request) for k, request in requests.items()}
        return _Call(step, num_batches, requests, results, plan)

    def _collect(self, call: _Call) -> dict[int, ShardBatch]:
        parts = {}
        for k, result in call.results.items():
            try:
                parts[k] = ray.get(result, timeout=CALL_TIMEOUT_S)
            except DOWN as error:
                self._set_down(k)
                raise _RetryError from error
            except StaleWindowError as error:
                self.refresh()
                raise _RetryError from error
        return parts

    def _current_plan(self) -> Plan:
        if self._plan is None:
            deadline_s = time.monotonic() + CALL_TIMEOUT_S
            while len(self._down) == len(self._shards):
                self.refresh()
                if len(self._down) == len(self._shards):
                    if time.monotonic() > deadline_s:
                        raise ClusterError(f"none of the {len(self._shards)} replay shards answers")
                    time.sleep(RETRY_INTERVAL_S)
            require_transitions(int(self._masses[:, 0, :, COUNT].sum()))
            self._plan = make_plan(self._specs, self._masses, self._shape.batch_size)
        return self._plan

    def _poll(self, now_s: float) -> None:
        """Look at the shards' masses now and then, without waiting."""
        if now_s < self._next_poll_s:
            return
        self._next_poll_s = now_s + (RETRY_INTERVAL_S if self._down else REFRESH_INTERVAL_S)
        if self._polls:
            ready, _ = ray.wait(list(self._polls.values()), num_returns=len(self._polls), timeout=0)
            for k in [k for k, call in self._polls.items() if call in ready]:
                self._learn(k, self._polls.pop(k), 0.1)
        for k, shard in enumerate(self._shards):
            if k not in self._polls:
                self._polls[k] = shard.masses.remote(self._specs)

    def _learn(self, shard: int, call: Any, timeout_s: float) -> None:
        try:
            masses = ray.get(call, timeout=timeout_s)
        except DOWN:
            self._set_down(shard)
            return
        self._down.discard(shard)
        if not np.array_equal(self._masses[shard], masses):
            self._masses[shard] = masses
            self._plan = None

    def _set_down(self, shard: int) -> None:
        if shard not in self._down:
            self.num_failures += 1
            self._next_poll_s = time.monotonic() + RETRY_INTERVAL_S
        self._down.add(shard)
        self._masses[shard] = 0.0
        self._plan = None


class _Metrics:
    """What Prometheus scrapes of a learner's side."""

    def __init__(self) -> None:
        keys = ("stream", "source")
        self._sampled = Counter("phaseb_replay_sampled_transitions", "Transitions handed to a learner.", keys)
        self._queue = Gauge("phaseb_replay_queue_depth", "Calls in flight ahead of a learner.")
        self._wait = Gauge("phaseb_replay_wait_fraction", "Share of its time that a learner waits for data.")
        self._age = Gauge("phaseb_replay_mean_age", "Mean age (rows inserted since) of what was sampled.", ("stream",))
        self._summary: dict[tuple[str, str], int] = {}
        self._next_s = 0.0

    def update(self, source: RemoteSource, depth: int) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + METRICS_INTERVAL_S
        self._queue.set(depth)
        self._wait.set(source.wait_fraction)
        for name, stats in source.accounting.to_json().items():
            self._age.set(stats["mean_age"], tags={"stream": name})
            for kind in ("real", "synthetic"):
                count = stats[f"sampled_{kind}"]
                if count > self._summary.get((name, kind), 0):
                    self._sampled.inc(count - self._summary.get((name, kind), 0), tags={"stream": name, "source": kind})
                    self._summary[name, kind] = count
