"""The task of an episode as a condition: behind the state's own columns, one for each task, 1 for the episode's own.

T steps, S state columns, K tasks.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from phaseb.episodes.episode import TASK_TAG, Episode, EpisodeRows
from phaseb.episodes.inventory import listed, shown
from phaseb.episodes.state_columns import TAG as COLUMNS_TAG
from phaseb.episodes.state_columns import Columns, from_tag, to_tag
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

CONDITION_TAG = "tasks"
"""The tag of an episode whose last state columns say the task: all K tasks in the order of the columns, as JSON."""
FILE = ("tasks.json",)
"""Where a run directory holds the tasks of its condition; stages that are done again leave it."""

AnyEpisode = TypeVar("AnyEpisode", bound=EpisodeRows)
Tasks = tuple[str, ...]
"""The K tasks of a condition, sorted; empty where there is no condition."""


def tasks_among(named: Sequence[tuple[str, str]]) -> Tasks:
    """The tasks that become a condition: those of all episodes, where there are two or more.

    Args:
        named: id and task of each episode, "" where it names none.

    Raises:
        DataError: where some episodes name one of several tasks and others none.
    """
    found = tuple(sorted({task for _, task in named} - {""}))
    if len(found) < 2:
        return ()
    without = [name for name, task in named if not task]
    if without:
        raise DataError(
            f"{len(without)} episodes name no task ({listed(without)}), the others name {listed(found)}: give every "
            "episode a task, or import them apart"
        )
    return found


def with_task(episode: Episode, tasks: Tasks) -> Episode:
    """An episode with its task in K more columns of its state; as it is where it has them, or without a condition.

    Raises:
        DataError: where its task is none of these.
    """
    if not tasks or CONDITION_TAG in episode.tags:
        return episode
    task = episode.tags.get(TASK_TAG, "")
    if task not in tasks:
        raise DataError(f"episode {episode.id} has the task '{short(task)}', which is none of {listed(tasks)}")
    state, columns = episode.state, from_tag(episode.tags)
    dtype = np.float32 if state is None else state.dtype
    own = np.tile(np.array([name == task for name in tasks], dtype), (len(episode) + 1, 1))
    if state is not None:
        columns = columns or [("state", state.shape[1])]
        own = np.concatenate([state, own], axis=1)
    tags = {**episode.tags, **condition_tags([*columns, *task_columns(tasks)], tasks)}
    return replace(episode, state=own, tags=tags)


def without_task(episode: AnyEpisode) -> AnyEpisode:
    """An episode as it was before `with_task`; as it is where its task is all that it shows."""
    tasks, state = tasks_of_tags(episode.tags), episode.state
    if state is None or not tasks:
        return episode
    columns = from_tag(episode.tags)[: -len(tasks)]
    if not columns and all(getattr(episode, name, None) is None for name in ("frames", "frames_at")):
        return episode
    tags = {**without_columns(episode.tags), **to_tag(columns)}
    return replace(episode, state=state[:, : -len(tasks)] if columns else None, tags=tags)


def without_columns(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of an episode but for those that say what its state is made of."""
    return {name: text for name, text in tags.items() if name not in (CONDITION_TAG, COLUMNS_TAG)}


def condition_tags(columns: Columns, tasks: Tasks) -> dict[str, str]:
    """The tags of an episode whose state of these columns ends with the condition of these tasks."""
    return to_tag(columns) | {CONDITION_TAG: json.dumps(tasks)}


def task_columns(tasks: Tasks) -> Columns:
    """Names and widths of the columns of a condition."""
    return [(f"{TASK_TAG}: {name}", 1) for name in tasks]


def tasks_of_tags(tags: Mapping[str, str]) -> Tasks:
    """The tasks of the condition that an episode's state holds; empty where it holds none."""
    return tuple(str(name) for name in json.loads(tags.get(CONDITION_TAG, "[]")))


def read_tasks(store: Store) -> Tasks:
    """The tasks of a run's condition; empty where there is none."""
    tree = store.read_json(*FILE) if store.exists(*FILE) else None
    return tuple(str(name) for name in tree or ())


def count_by_task(names: Sequence[str]) -> str:
    """Tasks and their episodes in words: `pick (12 episodes), place (8)`."""
    counts = sorted(Counter(names).items())
    return listed([f"{short(name)} ({count}{' episodes' if not i else ''})" for i, (name, count) in enumerate(counts)])


def own_name(task: str) -> str:
    """A recorded name of a task; "" for white space alone, which names none."""
    return task if task.strip() else ""


def short(task: str) -> str:
    """A task as a line shows it."""
    return shown(task, 80)


def much_alike(tasks: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of tasks that differ in case, white space, a mark at their end or the form of their characters alone."""
    found: dict[str, str] = {}
    pairs = []
    for task in tasks:
        words = " ".join(unicodedata.normalize("NFKC", task).casefold().split()).rstrip(" .,;!?")
        if words and (first := found.setdefault(words, task)) != task:
            pairs.append((first, task))
    return pairs
