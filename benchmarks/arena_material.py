"""The episodes of an arena task: training episodes drawn by seed, held-out ones beside them, written for a run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from arena_tasks import Task, data_folder
from ur3_episodes import read_cycles

from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.npz import read_npz
from phaseb.episodes.shards import iter_episodes, write_episodes
from phaseb.runtime.seeding import numpy_generator
from phaseb.runtime.storage import Store

MAX_BYTES = 2**32
DEV_SHARE, TEST_SHARE = 0.15, 0.25
"""Held-out episodes for each training episode, as the program's own defaults have it."""
UR3_STEPS = 8


def settings(task: Task, folder: Path, seed: int) -> list[str]:
    """The settings that name the episodes of a task; files that must be written go into `folder`."""
    if not task.file:
        return ["episodes.source=workcell", f"episodes.num_train={task.num_train}"]
    if task.held_out or task.world == "none":
        write_episodes(Store.at(str(folder)), _episodes(task, seed))
        return ["episodes.source=parquet", f"episodes.path={folder}"]
    return ["episodes.source=npz", f"episodes.path={data_folder() / task.file}"]


def training_episodes(run: Path) -> list[Episode]:
    """The training episodes of a run."""
    return list(iter_episodes(Store.at(str(run / "episodes")), ("train",)))


def write_for_peers(run: Path, path: Path) -> None:
    """The training episodes of a run as flat arrays, which a peer's own environment reads without phaseb."""
    episodes = training_episodes(run)
    if any(episode.state is None or episode.actions is None for episode in episodes):
        return
    ends = np.cumsum([len(episode) for episode in episodes]) - 1
    terminals, timeouts = np.zeros((2, int(ends[-1]) + 1), np.float32)
    terminals[ends] = [episode.terminated for episode in episodes]
    timeouts[ends] = 1 - terminals[ends]
    arrays = {
        "observations": np.concatenate([e.state[:-1] for e in episodes]).astype(np.float32),
        "actions": np.concatenate([e.actions for e in episodes]),
        "terminals": terminals,
        "timeouts": timeouts,
        "rewards": np.concatenate([e.rewards for e in episodes]),
    }
    np.savez_compressed(path, **arrays)


def _episodes(task: Task, seed: int) -> list[Episode]:
    if task.world == "none":
        return read_cycles(str(_beside(task.file)), UR3_STEPS)
    whole = read_npz(str(data_folder() / task.file), MAX_BYTES)
    held = read_npz(str(data_folder() / task.held_out), MAX_BYTES)
    if task.num_train:
        whole = _drawn(whole, task.num_train, seed, "train")
        held = _drawn(held, len(held), seed, "held out")
    num_dev = max(1, min(round(DEV_SHARE * len(whole)), round(len(held) * DEV_SHARE / (DEV_SHARE + TEST_SHARE))))
    num_test = max(1, min(round(TEST_SHARE * len(whole)), len(held) - num_dev))
    dev, test = held[:num_dev], held[num_dev : num_dev + num_test]
    parts = {"train": whole, "dev": dev, "test": test}
    return [replace(episode, split=split) for split, part in parts.items() for episode in part]  # type: ignore[arg-type]


def _drawn(episodes: Sequence[Episode], count: int, seed: int, what: str) -> list[Episode]:
    return [episodes[i] for i in numpy_generator(seed, "arena", what).permutation(len(episodes))[:count]]


def _beside(name: str) -> Path:
    """A file in the folder of the data, or in the one above it."""
    folder = data_folder()
    return folder / name if (folder / name).exists() else folder.parent / name
