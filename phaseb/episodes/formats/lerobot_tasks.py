"""The tasks of a LeRobot data set: the table that numbers them, the task of each episode, and what does not fit."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from phaseb.episodes.inventory import listed
from phaseb.episodes.parquet_file import naming, read_table
from phaseb.episodes.tasks import own_name, short
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

COLUMN = "task_index"
_TABLES = {"parquet": "tasks.parquet", "jsonl": "tasks.jsonl"}


def read_task_table(store: Store, max_bytes: int) -> dict[int, str]:
    """The text of each task by its number: `meta/tasks.parquet` of layout v3.0, else `meta/tasks.jsonl`.

    Empty where there is neither.

    Raises:
        DataError: where it lacks a number or a text.
    """
    if store.exists("meta", _TABLES["parquet"]):
        rows = read_table(store, f"meta/{_TABLES['parquet']}", max_bytes=max_bytes).to_pylist()
    elif store.exists("meta", _TABLES["jsonl"]):
        with naming(store, f"meta/{_TABLES['jsonl']}"):
            rows = [json.loads(line) for line in store.read_text("meta", _TABLES["jsonl"]).split("\n") if line.strip()]
    else:
        return {}
    with naming(store, "meta/tasks"):
        found: dict[int, str] = {}
        for row in rows:
            number, text = int(row[COLUMN]), _text(row)
            if found.setdefault(number, text) != text:
                raise DataError(f"task {number} is both {found[number]!r} and {text!r}: write the data set again")
        return found


def _text(row: Mapping[str, Any]) -> str:
    """The text of a row: the column beside the number, which pandas names as it likes where it is the index."""
    texts = [value for name, value in row.items() if name != COLUMN and isinstance(value, str)]
    if len(texts) != 1:
        raise DataError(f"task {row[COLUMN]} has {len(texts)} texts, wanted one: write the data set again with LeRobot")
    return texts[0]


def task_of_row(row: Mapping[str, Any]) -> str:
    """The task of an episode as `meta/episodes` has it; "" where it names none, or white space alone.

    Raises:
        DataError: where it names several.
    """
    tasks = row.get("tasks")
    named = [str(task) for task in ([tasks] if isinstance(tasks, str) else tasks or ()) if task is not None]
    if len(named) > 1:
        raise DataError(
            f"has the tasks {listed(named)} in one episode: split it where the task changes, or give it one task"
        )
    return own_name(named[0]) if named else ""


def check_rows(table: pa.Table, texts: Mapping[int, str], task: str) -> None:
    """See that all rows of an episode, a table, are of the task that `meta/episodes` names.

    Args:
        table: its rows.
        texts: of all tasks by number; empty where the data set lists none.
        task: of the episode; "" where it names none.

    Raises:
        DataError: naming the tasks of its rows, and the first row that differs.
    """
    if COLUMN not in table.column_names or not table.num_rows:
        return
    numbers = table[COLUMN].to_pylist()
    names = [texts.get(number, f"task {number}") for number in numbers]
    changed = next((i for i, name in enumerate(names) if name != names[0]), None)
    if changed is not None:
        raise DataError(
            f"changes its task in row {changed}, from '{short(names[0])}' to '{short(names[changed])}': split it "
            "there, or give it one task"
        )
    if texts and numbers[0] not in texts:
        raise DataError(
            f"has task_index {numbers[0]} in its rows, and meta/tasks lists {listed([str(n) for n in sorted(texts)])}: "
            "list it there, or write the data set again with LeRobot"
        )
    if texts and own_name(names[0]) != task and (task or len(texts) > 1):
        meant = f"is of the task '{short(task)}'" if task else "names no task"
        raise DataError(
            f"{meant} in meta/episodes, and its rows of '{short(names[0])}': write the data set again with LeRobot"
        )


def unused(texts: Mapping[int, str], tasks: Sequence[str]) -> str:
    """A sentence on tasks that no episode has; "" where there are none."""
    idle = sorted(set(texts.values()) - set(tasks))
    return f"no episode has the task {listed(idle)}, which meta/tasks lists" if idle and any(tasks) else ""
