"""Get real episodes: recorded in the environment by Ray tasks, or read from files; split before anything is fitted."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray

from phaseb.config.episodes import COLLECTED
from phaseb.config.root import Config
from phaseb.episodes.actions import ActionScale
from phaseb.episodes.episode import Episode
from phaseb.episodes.imports import import_episodes
from phaseb.episodes.shards import read_episodes, write_episodes
from phaseb.episodes.sources import fingerprints
from phaseb.episodes.splits import assign_splits, require_steps
from phaseb.errors import DataError, PhasebError
from phaseb.runs.environments import make_environment
from phaseb.runs.result import Callback, RunResult
from phaseb.runs.stage import Stage, StageContext
from phaseb.storage import Store

SCALE = ("episodes", "action_scale.json")


def work(context: StageContext) -> dict[str, Any]:
    config, store = context.config, context.store
    episodes = _record(context) if config.episodes.source in COLLECTED else _import(context)
    require_steps(episodes, config.synthesis.horizon)
    scale = _action_scale(config, episodes)
    store.write_json(scale.to_json() if scale else None, *SCALE)
    return _economics(episodes)


def read_action_scale(store: Store) -> ActionScale | None:
    """The scale of a run's actions; None where no episode carries actions."""
    value = store.read_json(*SCALE)
    return None if value is None else ActionScale.from_json(value)


def _record(context: StageContext) -> list[Episode]:
    """Episodes made by acting in an environment, written with their splits."""
    config = context.config
    if config.episodes.source == "workcell":
        from phaseb.workcell.collect import collect_episodes

        made = _collect(context, collect_episodes)
    else:
        from phaseb.runs.acting import act_episodes

        made = _collect(context, act_episodes, config.episodes.policy)
    episodes = assign_splits(made, config.episodes, config.run.seed)
    write_episodes(context.store.folder("episodes"), episodes, config.episodes.rows_per_shard)
    return episodes


def _import(context: StageContext) -> list[Episode]:
    """Episodes of files, streamed into shards by actors; given back without their frames, which may be large."""
    config, target = context.config, context.store.folder("episodes")
    import_episodes(
        config.episodes, target, config.run.seed, config.resources,
        lambda done, total: context.progress({"shards": float(done)}),
    )  # fmt: skip
    return read_episodes(target, frames=False)


def _collect(context: StageContext, collector: Callable[..., list[Episode]], *more: Any) -> list[Episode]:
    """Episodes 0 to n in parts, a Ray task each; every episode follows from (seed, its number) alone.

    The collector is called with (environment config, seed, episode numbers, *more).
    """
    config = context.config
    total = config.episodes.num_train + config.episodes.num_dev + config.episodes.num_test
    size = math.ceil(total / config.resources.num_tasks)
    parts = [list(range(first, min(first + size, total))) for first in range(0, total, size)]
    task = ray.remote(num_cpus=config.resources.cpus_per_task)(collector)
    waiting = [task.remote(config.environment, config.run.seed, part, *more) for part in parts]
    episodes: list[Episode] = []
    for done in waiting:
        episodes += task_result(done)
        context.progress({"episodes": float(len(episodes))})
    return episodes


def task_result(reference: Any) -> Any:
    """The result of a Ray task; a user's error raised in it comes back as itself, not as Ray's."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, PhasebError):
            raise error.cause from None
        raise


def _action_scale(config: Config, episodes: Sequence[Episode]) -> ActionScale | None:
    """The environment's bounds where there is an environment, else the range of the training episodes' actions."""
    train = [e for e in episodes if e.split == "train"]
    sizes = {e.actions.shape[1] for e in episodes if e.actions is not None}
    if not sizes:
        return None
    environment = make_environment(config.environment, 1)
    if environment is None:
        return ActionScale.fit(train)
    low, high = environment.action_low, environment.action_high
    environment.close()
    if sizes != {len(low)}:
        raise DataError(
            f"the episodes' actions have {sorted(sizes)} dimensions, environment {config.environment.id} takes "
            f"{len(low)}; set environment.id=none or to the environment that they come from"
        )
    return ActionScale(low, high)


def _economics(episodes: Sequence[Episode]) -> dict[str, Any]:
    train = [e for e in episodes if e.split == "train"]

    def total(name: str) -> float:
        return float(np.sum([e.metrics.get(name, math.nan) for e in train]))

    attempts, hours = total("good_units") + total("errors"), total("duration_h")
    return {
        "episodes": len(episodes),
        "steps": sum(len(e) for e in episodes),
        **{f"num_{split}": sum(e.split == split for e in episodes) for split in ("train", "dev", "test")},
        "mpl": total("good_units") / hours if hours > 0 else math.nan,
        "error_rate": total("errors") / attempts if attempts > 0 else math.nan,
    }


def _files(config: Config) -> str | None:
    """What the imported files are, so that other files at the same path are imported anew."""
    return fingerprints(config.episodes) or None


STAGE = Stage("collect", ("episodes", "environment"), (), ("episodes",), work, outside=_files)


def run(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    return STAGE.run_alone(config, callbacks)
