"""A stage's work over shards, on as many actors as the config gives."""

from collections.abc import Sequence
from typing import Any

import ray
import torch
from ray.util.metrics import Counter

from phaseb.episodes.pipeline import map_shards
from phaseb.episodes.shard_job import WorkerClass
from phaseb.pipeline.stage import StageContext


def map_stage_shards(
    context: StageContext, source: str, target: str, worker: WorkerClass, arguments: Sequence[Any], **actors: Any
) -> None:
    """Map the shards of one folder of the run into another, by actors of Ray Data: as `map_shards` takes them."""
    store = context.store
    map_shards(
        store.folder(*source.split("/")),
        store.folder(*target.split("/")),
        SingleThreadWorker,
        (context.name, worker, *arguments),
        context.config.resources,
        stamp=context.key,
        progress=lambda done, total: context.progress({"shards": float(done), "of": float(total)}),
        **actors,
    )


class SingleThreadWorker:
    """A worker whose torch keeps to one thread (oversubscribed cores are slower, not faster), and whose work Prometheus
    sees."""

    def __init__(self, stage: str, worker: WorkerClass, *arguments: Any) -> None:
        torch.set_num_threads(1)
        self._worker = worker(*arguments)
        self._tags = {"stage": stage}
        self._shards = Counter("phaseb_data_shards", "Shards that were encoded, rolled out or scored.", ("stage",))
        self._rows = Counter("phaseb_data_rows", "Episodes or rollouts in them.", ("stage",))

    def __call__(self, shard: Any) -> Any:
        made = self._worker(shard)
        if ray.is_initialized():
            self._shards.inc(1, tags=self._tags)
            self._rows.inc(max(1, len(made)), tags=self._tags)
        return made
