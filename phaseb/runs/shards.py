"""A stage's work over shards, on as many actors as the config gives."""

from collections.abc import Sequence
from typing import Any

import torch

from phaseb.episodes.pipeline import map_shards
from phaseb.episodes.shard_work import WorkerClass
from phaseb.runs.stage import StageContext


def over_shards(context: StageContext, source: str, target: str, worker: WorkerClass, arguments: Sequence[Any]) -> None:
    """Map the shards of one folder of the run into another, by actors of Ray Data."""
    store = context.store
    map_shards(
        store.folder(*source.split("/")), store.folder(*target.split("/")), OneThread, (worker, *arguments),
        context.config.resources, stamp=context.key,
        progress=lambda done, total: context.progress({"shards": float(done), "of": float(total)}),
    )  # fmt: skip


class OneThread:
    """A worker whose torch keeps to one thread: oversubscribed cores are slower, not faster."""

    def __init__(self, worker: WorkerClass, *arguments: Any) -> None:
        torch.set_num_threads(1)
        self._worker = worker(*arguments)

    def __call__(self, shard: Any) -> Any:
        return self._worker(shard)
