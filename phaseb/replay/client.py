"""The buffer on a Ray cluster, as writers and learners see it."""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakSet

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError

from phaseb.config.policy import ReplayConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import ClusterError
from phaseb.replay.remote_source import CALL_TIMEOUT_S, RemoteSource
from phaseb.replay.ring import InsertCounts, require_room
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import Segments, Source, from_trajectories, route, rows_per_shard, transition_keys
from phaseb.replay.shard import Folder, start_shards, wait_until_up
from phaseb.replay.spec import BatchShape, Replay, SampleSpec


class ReplayClient(Replay[RemoteSource]):
    """Shards in Ray actors, with the interface of `LocalReplay`. Can be sent to other tasks and actors.

    Args:
        schema: what a transition holds.
        config: capacity, number of shards, laws.
        shards: actors that run already (`start` makes new ones).

    Examples:
        >>> import phaseb
        >>> from phaseb.config.policy import ReplayConfig
        >>> from phaseb.replay.schema import TransitionSchema
        >>> from phaseb.replay.spec import SampleSpec
        >>> real = phaseb.load_latents("runs/demo", "train")
        >>> schema = TransitionSchema(latent_size=real.z.shape[2], action_size=real.actions.shape[2])
        >>> replay = phaseb.ReplayClient.start(schema, ReplayConfig(num_shards=1))
        >>> replay.insert(real, "real").inserted == int(real.lengths.sum())
        True
        >>> learner = replay.source([SampleSpec("real_only", seed=1)], batch_size=32, gamma=0.97)
        >>> learner.sample(step=0, num_batches=2)["reward"].shape
        (2, 1, 32)
        >>> replay.close()
    """

    def __init__(self, schema: TransitionSchema, config: ReplayConfig, shards: Sequence[Any]) -> None:
        self.schema = schema
        self.config = config
        self.shards = list(shards)
        self._acknowledged = [0] * len(self.shards)
        self._sources: WeakSet[RemoteSource] = WeakSet()

    @classmethod
    def start(cls, schema: TransitionSchema, config: ReplayConfig, folder: Folder = None) -> "ReplayClient":
        """Start the shards.

        Args:
            folder: where they keep journal and snapshots, a path, a URI or a store on any pyarrow filesystem; what lies
                there is read back. A path must be reachable from every node. None: nothing is written, and a shard
                that is killed comes back empty.

        Raises:
            ClusterError: where they are not up after CALL_TIMEOUT_S (no room in the cluster).
        """
        shards = start_shards(schema, config, folder)
        try:
            wait_until_up(shards, CALL_TIMEOUT_S)
        except GetTimeoutError as error:
            raise ClusterError(
                f"the {config.num_shards} replay shards did not start in {CALL_TIMEOUT_S:g} s; "
                "lower replay.num_shards or replay.shard_cpus, or add nodes"
            ) from error
        return cls(schema, config, shards)

    @property
    def num_transitions(self) -> int:
        return sum(status["num_transitions"] for status in self.status())

    def insert(
        self,
        trajectories: Trajectories,
        source: Source,
        columns: Mapping[str, NDArray[np.floating] | NDArray[np.bool_]] | None = None,
    ) -> InsertCounts:
        """See `LocalReplay.insert`. A call that is repeated after a failure inserts nothing twice."""
        return self.insert_segments(from_trajectories(trajectories, self.schema, source, columns))

    def insert_segments(self, segments: Segments) -> InsertCounts:
        """Insert segments, each into the shard that its episode belongs to; returns when all have acknowledged."""
        self.schema.require(segments.schema, "an insert")
        segments.check()
        require_room(segments, rows_per_shard(self.config))  # all shards take their part or none does
        calls = {k: self.shards[k].insert.remote(part) for k, part in route(segments, len(self.shards)).items()}
        done = InsertCounts(0, 0, 0)
        for k, call in calls.items():
            receipt = ray.get(call)
            self._acknowledged[k] = receipt.total_inserted
            done += receipt.done
        self._tell_sources()
        return done

    def set_weights(self, column: str, trajectories: Trajectories, source: Source, values: NDArray[np.floating]) -> int:
        """See `LocalReplay.set_weights`."""
        self.schema.weight(column)
        codes, steps, flat = transition_keys(trajectories, source, values)
        shard = codes % len(self.shards)
        calls = [
            actor.set_weights.remote(column, codes[shard == k], steps[shard == k], flat[shard == k])
            for k, actor in enumerate(self.shards)
        ]
        found = sum(ray.get(calls))
        self._tell_sources()
        return found

    def _tell_sources(self) -> None:
        for source in self._sources:
            source.invalidate()

    def make_source(self, specs: tuple[SampleSpec, ...], shape: BatchShape, gamma: float) -> "RemoteSource":
        """See `Replay.make_source`."""
        made = RemoteSource(self.schema, self.config, self.shards, specs, shape, gamma)
        self._sources.add(made)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return ReplayClient, (self.schema, self.config, self.shards)

    def status(self) -> list[dict[str, Any]]:
        """Of each shard its counts, and `lost`: transitions acknowledged to this client that a crash took with it."""
        found = ray.get([shard.status.remote() for shard in self.shards], timeout=CALL_TIMEOUT_S)
        return [
            {**status, "lost": max(0, known - status["inserted"])}
            for status, known in zip(found, self._acknowledged, strict=True)
        ]

    def close(self) -> None:
        """Stop the shards."""
        for shard in self.shards:
            ray.kill(shard)
