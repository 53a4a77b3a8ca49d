"""Work on one shard: read it, hand it to a worker, write what the worker makes of it under the same name.

The output carries a stamp of its input and of whatever the caller says it depends on. A shard with the right stamp
is done, so a killed job goes on where it stopped and a job with another model starts anew.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from phaseb.episodes.episode import Episode
from phaseb.episodes.parquet_file import read_stamp
from phaseb.episodes.shards import clear_shards, read_shard, row_digests, shard_names, write_shard
from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.storage import Store

Shard = list[Episode] | Trajectories


class ShardWorker(Protocol):
    """Made once with its arguments, then called with one shard after another.

    What it returns may depend on the shard's content only: draw random numbers from streams named by episode ids.
    """

    def __call__(self, shard: Any, /) -> Sequence[Episode] | Trajectories: ...


WorkerClass = Callable[..., ShardWorker]


@dataclass(frozen=True)
class ShardJob:
    """One pass of a worker over all shards of a folder.

    Attributes:
        source: the folder to read.
        target: the folder to write, a shard for a shard.
        stamp: digest of all else that the output depends on (model, settings).
    """

    source: Store
    target: Store
    stamp: str = ""

    def shard_stamp(self, name: str) -> str:
        """What the output made from the shard `name` carries."""
        state = hashlib.blake2b(self.stamp.encode(), digest_size=16)
        for row in row_digests(self.source, name):
            state.update(row)
        return state.hexdigest()

    def pending(self) -> list[str]:
        """The shards still to do, in order; outputs of other passes are deleted."""
        names = shard_names(self.source)
        done = {name for name in names if read_stamp(self.target, name) == self.shard_stamp(name)}
        clear_shards(self.target, keep=done)
        return [name for name in names if name not in done]

    def run(self, name: str, worker: ShardWorker) -> int:
        """Do one shard and return the number of rows written."""
        made = worker(read_shard(self.source, name))
        write_shard(self.target, name, made if isinstance(made, Trajectories) else list(made), self.shard_stamp(name))
        return len(made)
