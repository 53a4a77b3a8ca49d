"""Get real episodes: recorded in the environment by Ray tasks, or read from files; split before anything is fitted.

Either way they go into shards as they come: this process holds none, only some numbers of each.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import ray
from numpy.typing import NDArray

from phaseb.collection.environments import make_environment, shown_by
from phaseb.config.data import COLLECTED
from phaseb.config.root import Config
from phaseb.episodes.actions import SCALE, ActionScale
from phaseb.episodes.control import FILE, Control, control_of_tags, read_control
from phaseb.episodes.environment import VectorEnvironment
from phaseb.episodes.episode import TASK_TAG, Split
from phaseb.episodes.importer import import_episodes
from phaseb.episodes.inventory import Inventory, log_inventory
from phaseb.episodes.parquet_file import read_stamp
from phaseb.episodes.shards import clear_shards, iter_episodes, read_shard, shard_name, write_shard
from phaseb.episodes.sources import fingerprints
from phaseb.episodes.splits import choose_splits
from phaseb.episodes.state_columns import Columns, check_order
from phaseb.episodes.tasks import FILE as TASKS_FILE
from phaseb.episodes.tasks import Tasks, tasks_among, tasks_of_tags, with_task
from phaseb.errors import DataError
from phaseb.pipeline.dataset_stats import Bounds, DatasetStats
from phaseb.pipeline.sizes import FACTS
from phaseb.pipeline.stage import StageContext
from phaseb.runtime import logs
from phaseb.runtime.ray_tasks import results_of
from phaseb.runtime.storage import Store


def execute(context: StageContext) -> dict[str, Any]:
    config, store = context.config, context.store
    inventory: Inventory | None = None
    if config.episodes.source in COLLECTED:
        _record(context)
    else:
        inventory = _import(context)
    folder = store.folder("episodes")
    control = control_of_tags(next(iter_episodes(folder, frames=False)).tags)
    store.write_json(control.to_json() if control else None, *FILE)
    tasks = tasks_of_tags(next(iter_episodes(folder, frames=False)).tags)
    store.write_json(tasks or None, *TASKS_FILE)
    spec = environment_spec(config, control, tasks)
    try:
        seen = DatasetStats.of(iter_episodes(folder, frames=False), spec and spec.bounds)
    except DataError:
        if inventory is not None:  # what was imported; what was collected stays
            clear_shards(folder)
        raise
    if inventory is not None:
        _say(inventory, seen)
    scale, notices = check_recordings(config, spec, seen)
    for notice in notices:
        logs.event(notice, logging.WARNING)
    store.write_json(scale.to_json() if scale else None, *SCALE)
    frames = next(iter_episodes(folder)).frames
    shape = None if frames is None else frames.shape[1:]
    facts = replace(seen.facts(), frame_shape=shape, environment=spec and spec.shown)
    store.write_json(facts.to_json(), *FACTS)
    return seen.economics()


def _record(context: StageContext) -> None:
    """Episodes made by acting in an environment, a Ray task a shard; each follows from (seed, its number) alone."""
    config, target = context.config, context.store.folder("episodes")
    total, rows = _wanted(config), config.episodes.rows_per_shard
    roles = choose_splits([(f"{i}", "") for i in range(total)], config.episodes, config.run.seed)
    parts = [range(first, min(first + rows, total)) for first in range(0, total, rows)]
    names = [shard_name(i, len(parts)) for i in range(len(parts))]
    clear_shards(target, keep=[name for name in names if read_stamp(target, name) == context.key])
    todo = [(name, part) for name, part in zip(names, parts, strict=True) if not target.exists(name)]
    task = ray.remote(num_cpus=config.resources.cpus_per_task)(record_shard)
    begin = [
        functools.partial(task.remote, config, target, name, part, [roles[i] for i in part], context.key)
        for name, part in todo
    ]
    done = total - sum(len(part) for _, part in todo)

    def count(place: int, made: int) -> None:
        nonlocal done
        done += made
        context.progress({"episodes": float(done)})

    results_of(begin, 2 * config.resources.num_tasks, count)
    if config.episodes.source == "gymnasium":
        show_tasks(target, names, context.key)


def show_tasks(target: Store, names: Sequence[str], stamp: str) -> None:
    """Write collected shards again with the tasks in their states, where the environment named several.

    Raises:
        DataError: where it named a task for some episodes only.
    """
    tags = [(one.id, one.tags.get(TASK_TAG, "")) for one in iter_episodes(target, frames=False)]
    tasks = tasks_among(tags)
    for name in names if tasks else ():
        shard = read_shard(target, name)
        assert isinstance(shard, list)
        write_shard(target, name, [with_task(one, tasks) for one in shard], stamp)


def record_shard(
    config: Config, target: Store, name: str, indices: Sequence[int], roles: Sequence[Split], stamp: str
) -> int:
    """Record the episodes number `indices` with their splits and write them as one shard; returns how many."""
    if config.episodes.source == "workcell":
        from phaseb.workcell.collect import collect_episodes

        made = collect_episodes(config.environment, config.run.seed, indices)
    else:
        from phaseb.collection.gymnasium import collect_gymnasium_episodes

        made = collect_gymnasium_episodes(config.environment, config.run.seed, indices, config.episodes.policy)
    write_shard(target, name, [replace(e, split=role) for e, role in zip(made, roles, strict=True)], stamp)
    return len(made)


def _import(context: StageContext) -> Inventory:
    """Episodes of files, streamed into shards by actors; returns what the files hold and what is left out."""
    config, target = context.config, context.store.folder("episodes")
    found: list[Inventory] = []
    import_episodes(
        config.episodes,
        target,
        config.run.seed,
        config.resources,
        lambda done, total: context.progress({"shards": float(done)}),
        found.append,
        read_control(context.store),
    )
    return found[0]


def _say(inventory: Inventory, seen: DatasetStats) -> None:
    """One line on what came in; a warning where anything did not."""
    lengths = [steps for split in seen.lengths.values() for steps in split]
    log_inventory(inventory, len(lengths), sum(lengths))


def _wanted(config: Config) -> int:
    return config.episodes.num_train + config.episodes.num_dev + config.episodes.num_test


MOST_RESETS = 64
"""Seeds at which an environment that draws its tasks itself is asked for them before anything is trained."""


@final
@dataclass(frozen=True)
class EnvironmentSpec:
    """What an environment takes and shows: bounds of actions (A,), names of the state, sizes (see `shown_by`)."""

    bounds: Bounds
    state_names: Columns
    shown: dict[str, Any]


def environment_spec(config: Config, control: Control | None, tasks: Tasks = ()) -> EnvironmentSpec | None:
    """What the config's environment takes and shows in steps of control; None where there is none.

    Raises:
        ConfigError: where it cannot be made, or does not say which of several recorded tasks an episode has.
    """
    environment = make_environment(config.environment, 1, control, tasks)
    if environment is None:
        return None
    try:
        _ask_tasks(environment, len(tasks), config.evaluation.first_seed, config.evaluation.num_episodes)
        bounds = environment.action_low, environment.action_high
        names = tuple(getattr(environment, "state_names", ()))
        return EnvironmentSpec(bounds, names, shown_by(environment))
    finally:
        environment.close()


def _ask_tasks(environment: VectorEnvironment, num_tasks: int, first_seed: int, num_seeds: int) -> None:
    """See that the environment says a recorded task; one that draws its tasks itself is asked at more seeds.

    Raises:
        ConfigError: where it does not.
    """
    as_asked = True
    for number in range(max(num_tasks, min(num_seeds, MOST_RESETS)) if num_tasks else 0):
        if number >= num_tasks and as_asked:
            return
        environment.reset([first_seed + number])
        said: NDArray[np.int64] = environment.task_numbers  # type: ignore[attr-defined]
        as_asked &= bool(said[0] == (first_seed + number) % num_tasks)


def check_recordings(
    config: Config, spec: EnvironmentSpec | None, seen: DatasetStats
) -> tuple[ActionScale | None, list[str]]:
    """Compare episodes with the environment; returns the scale of actions and lines, as `choose_action_scale` does.

    Raises:
        DataError: where columns of the state lie elsewhere in the environment, or actions differ in size.
    """
    environment = config.environment.id
    check_order(seen.state_columns, spec.state_names if spec else (), f"environment {environment}")
    scale, notices = choose_action_scale(environment, spec and spec.bounds, seen)
    return scale, [*seen.notices(), *notices]


def choose_action_scale(
    environment: str, bounds: Bounds | None, seen: DatasetStats
) -> tuple[ActionScale | None, list[str]]:
    """The scale of a run's actions, and a line on each thing about it that a person ought to know.

    It is the environment's bounds; where these are infinite or much wider than what the training episodes hold, and
    without an environment, it is what they hold. None where no episode carries actions.

    Raises:
        DataError: where the episodes' actions differ in size, from each other or from the environment's.
    """
    seen.check_sizes()
    if not seen.action_sizes:
        return None, []
    if bounds is None:
        return seen.action_range(), []
    low, high = bounds
    if seen.action_sizes != {len(low)}:
        raise DataError(
            f"the episodes' actions have {sorted(seen.action_sizes)} dimensions, environment {environment} "
            f"takes {len(low)}; set environment.id=none or to the environment that they come from"
        )
    if seen.actions.is_empty:
        return ActionScale.of_environment(low, high, environment), []
    recorded = seen.action_range()
    scale, wide = recorded.within(low, high)
    notices = []
    if seen.actions.beyond:
        share = f"{seen.actions.beyond} of {seen.actions.steps} recorded actions"
        notices.append(
            f"{share} lie beyond the bounds of environment {environment} ({_ranges(low, high)}; recorded "
            f"{_ranges(recorded.low, recorded.high)}): they are clipped, as the environment clips them"
        )
    if wide.any():
        notices.append(
            f"the action bounds of environment {environment} ({_ranges(low[wide], high[wide])}) are far wider than "
            f"what was recorded: dimensions {', '.join(map(str, np.flatnonzero(wide)))} are scaled by the recorded "
            f"range ({_ranges(scale.low[wide], scale.high[wide])}), which policies do not leave"
        )
    return scale, notices


def _ranges(low: NDArray[np.float32], high: NDArray[np.float32]) -> str:
    """The ranges of at most four dimensions as text."""
    parts = [f"{a:.4g} to {b:.4g}" for a, b in zip(low[:4], high[:4], strict=True)]
    return ", ".join(parts) + (", …" if len(low) > 4 else "")


def _files(config: Config) -> str | None:
    """What the imported files are, so that other files at the same path are imported anew."""
    return fingerprints(config.episodes) or None
