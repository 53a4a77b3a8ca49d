"""The tasks of a LeRobot data set: the table that numbers them, the task of each episode, and what does not fit."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from phaseb.episodes.inventory import listed
from phaseb.episodes.parquet_file import naming, read_table
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
        return {int(row[COLUMN]): _text(row) for row in rows}


def _text(row: Mapping[str, Any]) -> str:
    """The text of a row: the column beside the number, which pandas names as it likes where it is the index."""
    texts = [value for name, value in row.items() if name != COLUMN and isinstance(value, str)]
    if len(texts) != 1:
        raise DataError(f"task {row[COLUMN]} has {len(texts)} texts, wanted one: write the data set again with LeRobot")
    return texts[0]


def task_of_row(row: Mapping[str, Any]) -> str:
    """The task of an episode as `meta/episodes` has it; "" where it names none.

    Raises:
        DataError: where it names several.
    """
    named = [str(task) for task in row.get("tasks") or ()]
    if len(named) > 1:
        raise DataError(
            f"has the tasks {listed(named)} in one episode: split it where the task changes, or give it one task"
        )
    return named[0] if named else ""


def check_rows(table: pa.Table, texts: Mapping[int, str]) -> None:
    """See that all rows of an episode, a table, are of one task; `texts` are those of all tasks by number.

    Raises:
        DataError: naming the tasks of its rows, and the first row that differs.
    """
    if COLUMN not in table.column_names:
        return
    numbers = table[COLUMN].to_pylist()
    changed = next((i for i, number in enumerate(numbers) if number != numbers[0]), None)
    if changed is not None:
        first, then = (texts.get(number, f"task {number}") for number in (numbers[0], numbers[changed]))
        raise DataError(
            f"changes its task in row {changed}, from {first!r} to {then!r}: split it there, or give it one task"
        )


def unused(texts: Mapping[int, str], tasks: Sequence[str]) -> str:
    """A sentence on tasks that no episode has; "" where there are none."""
    idle = sorted(set(texts.values()) - set(tasks))
    return f"no episode has the task {listed(idle)}, which meta/tasks lists" if idle and any(tasks) else ""
