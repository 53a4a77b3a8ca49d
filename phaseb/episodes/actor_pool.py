"""A pool of Ray actors, through Ray Data, that does named pieces of work; or this process alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray.data

from phaseb.config.run import ResourcesConfig
from phaseb.errors import ClusterError, ConfigError, DataError, PhasebError

WorkClass = Callable[..., Callable[[str], object]]
"""Made once an actor with its arguments, then called with the name of one piece after another."""


def run_pool(
    names: Sequence[str],
    work_class: WorkClass,
    args: Sequence[Any],
    resources: ResourcesConfig | None,
    gpus_per_actor: float = 0.0,
) -> Iterator[str]:
    """Do every piece, and give each name back when it is done, in any order.

    Args:
        names: of the pieces.
        work_class, args: what an actor makes and calls.
        resources: `num_tasks` actors of `cpus_per_task` each, for one piece a task instead. None, or one task without
            a GPU: this process.
        gpus_per_actor: what each reserves of a GPU, which it then sees; there are as many as the cluster's GPUs hold.

    Raises:
        PhasebError: what the work raised, as itself.
    """
    if not names:
        return
    if resources is None or (resources.num_tasks == 1 and not gpus_per_actor):
        alone = work_class(*args)
        for name in names:
            alone(name)
            yield name
        return
    work = (work_class, tuple(args))
    if len(names) == 1 and not gpus_per_actor:  # not worth a pool: its actors take seconds to start, a task's process
        task = ray.remote(num_cpus=resources.cpus_per_task)(_one_piece)  # has often done others before
        yield _name_of(ray.get(task.remote(names[0], *work)))
        return
    pieces = ray.data.from_items([{"name": name} for name in names], override_num_blocks=len(names))
    done = pieces.map_batches(
        _PoolActor,
        batch_size=1,
        num_cpus=resources.cpus_per_task,
        num_gpus=gpus_per_actor or None,
        fn_constructor_args=work,
        compute=ray.data.ActorPoolStrategy(size=min(_most_actors(resources, gpus_per_actor), len(names))),
    )
    yield from map(_name_of, done.iter_rows())


def _most_actors(resources: ResourcesConfig, gpus_per_actor: float) -> int:
    """`num_tasks`, or fewer where each needs a share of a GPU."""
    if not gpus_per_actor:
        return resources.num_tasks
    room = int(ray.cluster_resources().get("GPU", 0.0) / gpus_per_actor)
    return min(resources.num_tasks, max(1, room))


def _one_piece(name: str, work_class: WorkClass, args: Sequence[Any]) -> dict[str, Any]:
    return {key: value[0] for key, value in _PoolActor(work_class, args)({"name": [name]}).items()}


def _name_of(row: dict[str, Any]) -> str:
    if row["error"]:
        raise _ERRORS.get(row["kind"], PhasebError)(row["error"])
    return str(row["name"])


_ERRORS: dict[str, type[PhasebError]] = {c.__name__: c for c in (ConfigError, DataError, ClusterError)}


class _PoolActor:
    """What one actor holds: the work, made once. Users' errors come back as rows: Ray would wrap them in its own."""

    def __init__(self, work_class: WorkClass, args: Sequence[Any]) -> None:
        self._failure = ("", "")
        try:
            self._work: Callable[[str], object] | None = work_class(*args)
        except PhasebError as error:
            self._work, self._failure = None, (type(error).__name__, str(error))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (name,) = batch["name"]
        kind, text = self._failure
        if self._work is not None:
            try:
                self._work(str(name))
            except PhasebError as error:
                kind, text = type(error).__name__, str(error)
        return {"name": [str(name)], "kind": [kind], "error": [text]}
