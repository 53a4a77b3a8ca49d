"""The episodes that a generation brings: collected by the shipped policy, or files that appeared in a folder."""

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow.fs as pafs
import ray

from phaseb.collection.active_selection import select_starts
from phaseb.collection.deployed_policy import DeployedPolicySpec, collect_by_policy
from phaseb.config.flywheel import FlywheelConfig
from phaseb.config.root import Config
from phaseb.episodes.control import Control, control_of_tags
from phaseb.episodes.control_source import open_in_steps
from phaseb.episodes.episode import TASK_TAG, Episode, Split
from phaseb.episodes.inventory import log_inventory
from phaseb.episodes.shards import digest, iter_episodes, write_episodes
from phaseb.episodes.sources import inventory_of
from phaseb.episodes.splits import choose_splits
from phaseb.episodes.state_columns import check_order, from_tag
from phaseb.episodes.tasks import Tasks, tasks_among, tasks_of_tags, with_task
from phaseb.errors import DataError, PhasebError
from phaseb.flywheel.history import History
from phaseb.runtime.ray_tasks import get_result
from phaseb.runtime.seeding import derive_seed
from phaseb.runtime.storage import Store

NUM_CANDIDATES = 4
"""Starts from which each recommended one is chosen."""
MARK = "batch.json"
"""Written last: without it, a batch was left half-made and is made again."""


def has_batch(history: History, number: int) -> bool:
    return history.batch_of(number).exists(MARK)


def collect_batch(config: Config, history: History, number: int) -> None:
    """Have the shipped policy collect the episodes of a generation, in Ray tasks, and keep them with their splits."""
    assert history.shipped is not None
    plan, shipped = config.flywheel, history.shipped
    store = history.run_of(shipped["generation"])
    crew = DeployedPolicySpec(store, shipped["arm"], config.arms.num_seeds, plan.exploration)
    if plan.choose == "recommended":
        seeds = select_starts(config, store, number, plan.num_episodes, NUM_CANDIDATES)
    else:
        seeds = [derive_seed(config.run.seed, "flywheel", number, i) for i in range(plan.num_episodes)]
    wanted = [(f"g{number:03d}-{i:05d}", seed, i % crew.num_seeds) for i, seed in enumerate(seeds)]
    size = math.ceil(len(wanted) / config.resources.num_tasks)
    task = ray.remote(num_cpus=config.resources.cpus_per_task)(collect_by_policy)
    parts = [task.remote(config.environment, crew, wanted[i : i + size]) for i in range(0, len(wanted), size)]
    episodes = [episode for part in parts for episode in get_result(part)]
    made_by = {"generation": str(shipped["generation"]), "arm": shipped["arm"]}
    episodes = [replace(e, tags={**e.tags, "generation": made_by["generation"]}) for e in episodes]
    _keep(config, history.batch_of(number), _split(episodes, plan, config.run.seed), {"by": made_by})


def watch_folder(config: Config, history: History, number: int) -> bool:
    """Wait for new files and keep their episodes; false where none came within `flywheel.wait_s`."""
    plan, seen = config.flywheel, dict[str, str]()
    deadline = None if plan.wait_s is None else time.monotonic() + plan.wait_s
    while True:
        now = _items(plan.folder)
        settled = [name for name, print_ in now.items() if seen.get(name) == print_]  # still being written: not yet
        episodes, files = _read(config, history, {name: now[name] for name in settled})
        if len(episodes) >= plan.min_episodes:
            if number == 0:
                episodes = _begin(config, episodes)
            else:
                episodes = _split(episodes, plan, config.run.seed)
            _keep(config, history.batch_of(number), episodes, {"files": files})
            return True
        if deadline is not None and time.monotonic() > deadline and now == seen:
            return False
        seen = now
        time.sleep(plan.poll_s)


def _begin(config: Config, episodes: Sequence[Episode]) -> list[Episode]:
    """The episodes of the first generation with their splits, and with their tasks where they name several.

    Raises:
        DataError: where some name one of several tasks and others none.
    """
    named = [e.tags.get(TASK_TAG, "") for e in episodes]
    tasks = tasks_among([(e.id, task) for e, task in zip(episodes, named, strict=True)])
    entries, lengths = [(e.id, e.split) for e in episodes], [len(e) for e in episodes]
    roles = choose_splits(entries, config.episodes, config.run.seed, lengths, named if tasks else None)
    return [with_task(replace(e, split=role), tasks) for e, role in zip(episodes, roles, strict=True)]


def _items(folder: str) -> dict[str, str]:
    """What lies in the folder, hidden names left out, with a print of names, sizes and times.

    Raises:
        DataError: where there is no such folder.
    """
    store = Store.at(folder)
    if store.filesystem.get_file_info(store.root).type != pafs.FileType.Directory:
        raise DataError(f"no such folder: {folder}; set flywheel.folder")
    found = {}
    for name in sorted([*store.names(), *store.folders()]):
        if name.startswith("."):
            continue
        selector = pafs.FileSelector(store.path(name), recursive=True)
        files = [store.filesystem.get_file_info(store.path(name))]
        if not store.is_file(name):
            files += store.filesystem.get_file_info(selector)
        seen = sorted((f.path, f.size, f.mtime_ns) for f in files if f.type == pafs.FileType.File)
        found[name] = hashlib.blake2b(repr(seen).encode(), digest_size=16).hexdigest()
    return found


def _read(config: Config, history: History, items: Mapping[str, str]) -> tuple[list[Episode], dict[str, str]]:
    """The episodes of files that were not taken before; what cannot be read is written down once and left."""
    taken = {name for batch in _batches(history) for name in batch.get("files", {})}
    assert history.rejected is not None
    refused = {(r["name"], r["print"]) for r in history.rejected}
    episodes, files = list[Episode](), dict[str, str]()
    for name, print_ in items.items():
        if name in taken or (name, print_) in refused:
            continue
        try:
            part = config.episodes.model_copy(update={"path": f"{config.flywheel.folder.rstrip('/')}/{name}"})
            source = open_in_steps(part, _control(history, episodes))
            tasks = _tasks(history, episodes)
            found = [with_task(one, tasks) for one in source.read(range(len(source.entries())))]
            _check_alike(history, found)
            log_inventory(inventory_of(source), len(found), sum(map(len, found)), file=name)
        except PhasebError as error:
            history.rejected.append({"name": name, "print": print_, "reason": str(error).splitlines()[0]})
            history.save()
            continue
        stem = name.rpartition(".")[0] or name
        episodes += [replace(e, id=f"{stem}/{e.id}", tags={**e.tags, "file": name}) for e in found]
        files[name] = print_
    return episodes, files


def _control(history: History, found: Sequence[Episode]) -> Control | None:
    """How the steps of the first generation, or of the files before, were made of rows; None where nothing says."""
    first = _first(history, found)
    return None if first is None else control_of_tags(first.tags)


def _tasks(history: History, found: Sequence[Episode]) -> Tasks:
    """The tasks that the state of the first generation, or of the files before, says; none where nothing says."""
    first = _first(history, found)
    return () if first is None else tasks_of_tags(first.tags)


def _first(history: History, found: Sequence[Episode]) -> Episode | None:
    return next(iter_episodes(history.batch_of(0), frames=False)) if has_batch(history, 0) else next(iter(found), None)


def _check_alike(history: History, found: Sequence[Episode]) -> None:
    """Episodes of other shapes than the first generation's would spoil every generation to come.

    Raises:
        DataError: naming the first that differs.
    """
    if not has_batch(history, 0) or not found:
        return
    first = next(iter_episodes(history.batch_of(0)))
    known, order = _shapes(first), from_tag(first.tags)
    only = "" if tasks_of_tags(first.tags) else first.tags.get(TASK_TAG, "")
    for episode in found:
        if only and episode.tags.get(TASK_TAG, only) != only:
            raise DataError(
                f"episode {episode.id} has the task {episode.tags[TASK_TAG]!r}, the first generation {only!r} alone: "
                "begin a flywheel with episodes of both"
            )
        if _shapes(episode) != known:
            raise DataError(f"episode {episode.id} is of shapes {_shapes(episode)}, the others of {known}")
        check_order(from_tag(episode.tags), order, "earlier generations")


def _shapes(episode: Episode) -> dict[str, tuple[int, ...] | None]:
    arrays = {"state": episode.state, "frames": episode.frames, "actions": episode.actions}
    return {name: None if array is None else array.shape[1:] for name, array in arrays.items()}


def _batches(history: History) -> list[dict[str, Any]]:
    folder = history.store.folder("batches")
    return [folder.read_json(n, MARK) for n in folder.folders() if folder.exists(n, MARK)]


def _split(episodes: Sequence[Episode], plan: FlywheelConfig, seed: int) -> list[Episode]:
    """Splits by rank of a hash of (seed, id); episodes that all carry one keep it."""
    if all(e.split for e in episodes):
        return list(episodes)
    num_test, num_dev = (round(len(episodes) * f) for f in (plan.test_fraction, plan.dev_fraction))
    ranked = sorted(range(len(episodes)), key=lambda i: derive_seed(seed, "split", episodes[i].id))
    roles: list[Split] = ["train"] * len(episodes)
    for position, index in enumerate(ranked[: num_test + num_dev]):
        roles[index] = "test" if position < num_test else "dev"
    return [replace(e, split=role) for e, role in zip(episodes, roles, strict=True)]


def _keep(config: Config, store: Store, episodes: Sequence[Episode], lineage: Mapping[str, Any]) -> None:
    write_episodes(store, episodes, config.episodes.rows_per_shard)
    splits = {split: sum(e.split == split for e in episodes) for split in ("train", "dev", "test")}
    store.write_json({**lineage, "episodes": len(episodes), "splits": splits, "digest": digest(store)}, MARK)
