"""The tasks of LeRobot data sets, as LeRobot's own library wrote them and with a second one put in."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.control_source import open_recordings
from phaseb.episodes.sources import inventory_of, open_source
from phaseb.errors import DataError

FIXTURES = Path(__file__).parents[3] / "fixtures"
MOVE, TURN, FOLD = "move the part", "turn the part", "fold the cloth"
STEPS = (6, 4, 5, 7, 8)


def config(path: Path) -> EpisodesConfig:
    return EpisodesConfig(source="lerobot", path=str(path))


def edit(path: Path, change) -> None:
    """Write a Parquet file again with some columns changed; its metadata stay."""
    table = pq.read_table(path)
    for name, values in change(table).items():
        at = table.column_names.index(name)
        table = table.set_column(at, table.field(at), pa.array(values, table.field(at).type))
    pq.write_table(table, path)


def with_tasks(copied: tuple[Path, str], tasks: list[str], listed: list[str]) -> Path:
    """The fixture with other tasks of its five episodes, and a table that lists some."""
    path, version = copied
    numbers = [listed.index(task) for task in tasks]
    rows = [{"task_index": i, "task": task} for i, task in enumerate(listed)]
    if version == "v3":
        table = pq.read_table(path / "meta" / "tasks.parquet")
        pq.write_table(
            pa.table(
                {"task_index": range(len(listed)), "__index_level_0__": listed},
            ).replace_schema_metadata(table.schema.metadata),
            path / "meta" / "tasks.parquet",
        )
        (meta,) = (path / "meta" / "episodes").rglob("*.parquet")
        edit(meta, lambda _: {"tasks": [[task] for task in tasks]})
    else:
        (path / "meta" / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        file = path / "meta" / "episodes.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [line | {"tasks": [tasks[line["episode_index"]]]} for line in lines]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for data in (path / "data").rglob("*.parquet"):
        edit(data, lambda t: {"task_index": [numbers[i] for i in t["episode_index"].to_pylist()]})
    return path


@pytest.fixture(params=["v3", "v21"])
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    return Path(shutil.copytree(FIXTURES / f"lerobot-{request.param}", tmp_path / "d")), request.param


def test_the_task_that_lerobot_wrote_is_a_tag_and_one_task_no_condition(copy):
    path, _ = copy
    source = open_source(config(path))
    assert [episode.tags["task"] for episode in source.read(range(5))] == [MOVE] * 5
    assert open_recordings(config(path), 0).tasks == ()
    assert not [note for note in inventory_of(source).notes if "task" in note]


def test_two_tasks_are_shown_by_the_state_and_idle_ones_named(copy):
    tasks = [MOVE, TURN, MOVE, TURN, MOVE]
    path = with_tasks(copy, tasks, [TURN, FOLD, MOVE])
    opened = open_recordings(config(path), 0)
    assert opened.tasks == (MOVE, TURN)
    for task, episode in zip(tasks, opened.read(range(5)), strict=True):
        assert episode.tags["task"] == task
        assert episode.state is not None
        assert episode.state[:, 3:].tolist() == [[float(task == MOVE), float(task == TURN)]] * (len(episode) + 1)
    assert f"no episode has the task {FOLD}, which meta/tasks lists" in inventory_of(opened.source).notes


def test_an_episode_whose_task_changes_is_refused_by_name(copy):
    path = with_tasks(copy, [MOVE, TURN, MOVE, TURN, MOVE], [MOVE, TURN])

    def change(table: pa.Table) -> dict[str, list[int]]:
        places = zip(table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True)
        return {"task_index": [int(episode % 2 or (episode == 2 and row >= 3)) for episode, row in places]}

    for data in (path / "data").rglob("*.parquet"):
        edit(data, change)
    source = open_source(config(path))
    with pytest.raises(DataError, match=f"episode 2: changes its task in row 3, from '{MOVE}' to '{TURN}'"):
        list(source.read(range(5)))


def rename(copied: tuple[Path, str], tasks: list) -> None:
    """Give the five episodes other tasks in meta/episodes, and leave their rows."""
    path, version = copied
    if version == "v3":
        (meta,) = (path / "meta" / "episodes").rglob("*.parquet")
        edit(meta, lambda _: {"tasks": tasks})
    else:
        file = path / "meta" / "episodes.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [line | {"tasks": tasks[line["episode_index"]]} for line in lines]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([[MOVE], [MOVE], [TURN], [TURN], [MOVE]], f"1: is of the task '{MOVE}' in meta/episodes, .* of '{TURN}'"),
        ([None] * 5, f"0: names no task in meta/episodes, and its rows of '{MOVE}'"),
        ([[None]] * 5, f"0: names no task in meta/episodes, and its rows of '{MOVE}'"),
    ],
)
def test_an_episode_whose_rows_are_of_another_task_than_meta_says_is_refused(copy, tasks, said):
    with_tasks(copy, [MOVE, TURN, MOVE, TURN, MOVE], [MOVE, TURN])
    rename(copy, tasks)
    with pytest.raises(DataError, match=said):
        list(open_source(config(copy[0])).read(range(5)))


def test_rows_of_a_task_that_no_table_lists_are_refused(copy):
    path = with_tasks(copy, [MOVE, TURN, MOVE, TURN, MOVE], [MOVE, TURN])
    for data in (path / "data").rglob("*.parquet"):
        edit(data, lambda table: {"task_index": [7] * table.num_rows})
    with pytest.raises(DataError, match="episode 0: has task_index 7 in its rows, and meta/tasks lists 0, 1: list it"):
        list(open_source(config(path)).read(range(5)))


def test_a_number_of_two_tasks_is_refused(copy):
    with_tasks(copy, [MOVE, TURN, MOVE, TURN, MOVE], [MOVE, TURN])
    path, version = copy
    if version == "v3":
        edit(path / "meta" / "tasks.parquet", lambda _: {"task_index": [1, 1]})
    else:
        (path / "meta" / "tasks.jsonl").write_text(
            "".join(json.dumps({"task_index": 1, "task": task}) + "\n" for task in (MOVE, TURN))
        )
    with pytest.raises(DataError, match=f"task 1 is both '{MOVE}' and '{TURN}'"):
        open_source(config(path))


def test_an_episode_that_meta_gives_two_tasks_is_refused_by_name(copy):
    path, _ = copy
    rename(copy, [[MOVE], [MOVE], [MOVE, TURN], [MOVE], [MOVE]])
    with pytest.raises(DataError, match=f"episode 2: has the tasks {MOVE}, {TURN} in one episode"):
        open_recordings(config(path), 0)
