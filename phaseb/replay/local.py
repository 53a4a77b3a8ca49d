"""The buffer in the learner's own process: the same shards and laws as on Ray, without Ray."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.policy import ReplayConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.replay.accounting import SamplingStats
from phaseb.replay.assembly import BufferPool, assemble
from phaseb.replay.partition import Partition
from phaseb.replay.plan import check_specs, make_plan, make_requests
from phaseb.replay.ring import InsertCounts
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import Segments, Source, from_trajectories, require_transitions, route, transition_keys
from phaseb.replay.spec import BatchShape, Replay, SampleSpec


class LocalReplay(Replay["LocalSource"]):
    """Shards in this process.

    Args:
        schema: what a transition holds.
        config: capacity, number of shards, laws.
    """

    def __init__(self, schema: TransitionSchema, config: ReplayConfig) -> None:
        self.schema = schema
        self.config = config
        self.partitions = [Partition(schema, config) for _ in range(config.num_shards)]

    @property
    def num_transitions(self) -> int:
        return sum(p.num_transitions for p in self.partitions)

    def insert(
        self,
        trajectories: Trajectories,
        source: Source,
        columns: Mapping[str, NDArray[np.floating] | NDArray[np.bool_]] | None = None,
    ) -> InsertCounts:
        """Insert latent episodes; those transitions that are held already are left out. See `from_trajectories`.

        Raises:
            DataError: sizes, NaN or weights that do not fit; the buffer is unchanged.
        """
        return self.insert_segments(from_trajectories(trajectories, self.schema, source, columns))

    def insert_segments(self, segments: Segments) -> InsertCounts:
        """Insert segments, each into the shard that its episode belongs to."""
        parts = route(segments, len(self.partitions))
        for k, part in parts.items():  # all shards take their part or none does
            self.partitions[k].check(part)
        done = [self.partitions[k].insert(part, checked=True) for k, part in parts.items()]
        return InsertCounts(
            sum(d.inserted for d in done), sum(d.duplicates for d in done), sum(d.evicted for d in done)
        )

    def set_weights(self, column: str, trajectories: Trajectories, source: Source, values: NDArray[np.floating]) -> int:
        """Set a weight column of every transition of these episodes from values (N, T); returns how many are held."""
        codes, steps, flat = transition_keys(trajectories, source, values)
        self.schema.weight(column)
        found = 0
        for k, partition in enumerate(self.partitions):
            here = codes % len(self.partitions) == k
            found += partition.set_weights(column, codes[here], steps[here], flat[here])
        return found

    def status(self) -> list[dict[str, Any]]:
        """Of each shard what it holds."""
        return [partition.status() for partition in self.partitions]

    def make_source(self, specs: tuple[SampleSpec, ...], shape: BatchShape, gamma: float) -> "LocalSource":
        """See `Replay.make_source`."""
        return LocalSource(self, specs, shape, gamma)


class LocalSource:
    """A `BatchSource` over a `LocalReplay`; `accounting` holds the books."""

    wait_fraction = 0.0  # whoever draws does the work and waits for nobody
    queue_depth = 0

    def __init__(self, replay: LocalReplay, specs: tuple[SampleSpec, ...], shape: BatchShape, gamma: float) -> None:
        check_specs(specs, replay.schema)
        self._replay, self._specs, self._shape, self._gamma = replay, specs, shape, gamma
        self._pool = BufferPool()
        self.accounting = SamplingStats(specs)

    def refresh(self) -> None:
        """As on Ray; here what is held is looked at before every draw anyhow."""

    def sample(self, step: int, num_batches: int) -> dict[str, NDArray[np.generic]]:
        """The batches of steps `step` … `step + num_batches − 1`; see `BatchSource`.

        Raises:
            DataError: an empty buffer, or a batch larger than the real stratum.
        """
        replay = self._replay
        require_transitions(replay.num_transitions)
        masses = np.stack([p.masses(self._specs) for p in replay.partitions])
        plan = make_plan(self._specs, masses, self._shape.batch_size)
        requests = make_requests(plan, self._specs, self._shape, step, num_batches, self._gamma)
        parts = {k: replay.partitions[k].sample(request) for k, request in requests.items()}
        request = next(iter(requests.values()))
        batch = assemble(replay.schema, request, parts, plan.windows, self._pool)
        self.accounting.add(step, num_batches, [part.stats for part in parts.values()], batch)
        return batch
