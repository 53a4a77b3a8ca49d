"""Shards through Ray Data: a pool of actors maps them, and they open as Ray datasets.

Rows of `dataset` and `windows` are Arrow tensors, which Ray hands on as NumPy arrays without copying.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray

from phaseb.config.run import ResourcesConfig
from phaseb.episodes.actor_pool import run_pool
from phaseb.episodes.episode import Episode
from phaseb.episodes.shard_job import ShardJob, WorkerClass
from phaseb.episodes.shards import read_shard, shard_names
from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.storage import Store

Progress = Callable[[int, int], None]


def map_shards(
    source: Store,
    target: Store,
    worker_class: WorkerClass,
    worker_args: Sequence[Any] = (),
    resources: ResourcesConfig | None = None,
    *,
    stamp: str = "",
    gpus_per_actor: float = 0.0,
    progress: Progress | None = None,
) -> list[str]:
    """Make `target` from `source` shard by shard, the same whatever the number of actors.

    Args:
        source, target: folders of shards.
        worker_class: made once an actor with `worker_args` (keep them small: where a model lies, not the model);
            called with a shard's episodes or trajectories, it returns episodes or trajectories.
        resources: what to use: `num_tasks` actors of `cpus_per_task` each. None works in this
            process, without Ray.
        stamp: digest of what the output depends on beside the source; shards done under it are skipped.
        gpus_per_actor: what each reserves of a GPU; its worker then sees one.
        progress: called with (shards done, all shards) after each.

    Returns:
        the names of all shards of `target`.

    Raises:
        PhasebError: what a worker raised; shards already written stay and are not done again.
    """
    job, names = ShardJob(source, target, stamp), shard_names(source)
    todo = job.pending()
    work = (job, worker_class, tuple(worker_args))
    finished = run_pool(todo, _ShardWork, work, resources, gpus_per_actor)
    for done, _ in enumerate(finished, start=len(names) - len(todo) + 1):
        if progress is not None:
            progress(done, len(names))
    return names


def dataset(store: Store) -> "ray.data.Dataset":
    """The shards of a folder as a Ray dataset, one row an episode (columns as in `schema`)."""
    paths = [store.path(name) for name in shard_names(store)]
    return ray.data.read_parquet(paths, filesystem=store.filesystem)


def windows(store: Store, length: int, stride: int = 1) -> "ray.data.Dataset":
    """All windows of `length` steps as a Ray dataset, in fixed shapes that batch as plain arrays.

    Columns: `id`, `start`, `rewards` (length,), and where there are such `actions` (length, A), and `state` or `z`
    (length + 1, D). Episodes that are shorter give no window.
    """
    names = [{"shard": name} for name in shard_names(store)]
    shards = ray.data.from_items(names, override_num_blocks=len(names))
    return shards.map_batches(
        _cut_windows, batch_size=1, fn_kwargs={"store": store, "length": length, "stride": stride}
    )


class _ShardWork:
    """A shard worker and the job it does; called with the name of a shard."""

    def __init__(self, job: ShardJob, worker_class: WorkerClass, args: Sequence[Any]) -> None:
        self._job, self._worker = job, worker_class(*args)

    def __call__(self, name: str) -> None:
        self._job.run(name, self._worker)


def _cut_windows(batch: dict[str, Any], store: Store, length: int, stride: int) -> pa.Table:
    (name,) = batch["shard"]
    parts: dict[str, list[NDArray[np.floating]]] = {}
    ids: list[str] = []
    starts: list[int] = []
    for episode, arrays in _ragged(read_shard(store, str(name))):
        at = range(0, len(arrays["rewards"]) - length + 1, stride)
        ids += [episode] * len(at)
        starts += at
        for key, array in arrays.items():
            size = length + (key in ("state", "z"))
            parts.setdefault(key, []).extend(array[t : t + size] for t in at)
    if not ids:
        return pa.table({})
    columns = {key: pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(rows)) for key, rows in parts.items()}
    return pa.table({"id": pa.array(ids), "start": pa.array(starts, pa.int64()), **columns})


def _ragged(shard: list[Episode] | Trajectories) -> list[tuple[str, dict[str, NDArray[np.floating]]]]:
    if isinstance(shard, Trajectories):
        return [
            (shard.ids[i], {"z": shard.z[i, : n + 1], "actions": shard.actions[i, :n], "rewards": shard.rewards[i, :n]})
            for i, n in enumerate(shard.lengths)
        ]
    rows = [(e.id, {"state": e.state, "actions": e.actions, "rewards": e.rewards}) for e in shard]
    return [(name, {key: array for key, array in row.items() if array is not None}) for name, row in rows]
