"""When a flywheel stops, what it takes from a folder, what it keeps of its past: all of it without a cluster."""

import shutil
from dataclasses import replace

import pytest

from phaseb.config.data import EnvironmentConfig
from phaseb.config.load import load_config
from phaseb.episodes.shards import read_episodes, write_episodes
from phaseb.errors import ConfigError, DataError
from phaseb.flywheel.collection import has_batch, watch_folder
from phaseb.flywheel.generation import generation_config, make_plan
from phaseb.flywheel.history import History
from phaseb.flywheel.loop import FlywheelLoop
from phaseb.report.flywheel import flywheel_page, flywheel_summary
from phaseb.runtime.storage import Store
from phaseb.workcell.collect import collect_episodes

CELL = EnvironmentConfig(observation="state", max_steps=5)


def config(tmp_path, *words):
    return load_config(None, [f"run.dir={tmp_path / 'wheel'}", *words])


def generation(number, promoted=True, mpl=100.0, spent=10, **change):
    value = {name: {"mean": mpl, "low": mpl - 9, "high": mpl + 9} for name in ("mpl", "error_rate", "return")}
    return {
        "number": number,
        "state": "done",
        "promoted": promoted,
        "arm": "trust_weighted",
        "metrics": value,
        "shipped": {"generation": number if promoted else 0, "arm": "trust_weighted"},
        "retrained": ["dynamics"],
        "trust": {"pass_rate": 0.5, "judge_auc": None},
        "seconds": 60.0,
        "decision": {"reason": "it <is> better"},
        "episodes": {"train": 20, "real": 40 + number, "new": 5, "spent": spent},
        "worth": None,
        "plan": {
            "tests": [
                {
                    "part": "trust",
                    "name": "turned_away",
                    "held_out": 0.05,
                    "new": 0.4,
                    "p": 1e-4,
                    "num_new": 9,
                    "drifted": True,
                }
            ]
        },
    } | change


def failed(number):
    return {
        "number": number,
        "state": "failed",
        "promoted": False,
        "reason": "it broke",
        "kind": "RuntimeError",
        "shipped": {"generation": 0, "arm": "real_only"},
    }


def wheel(tmp_path, generations, *words):
    made = config(tmp_path, *words)
    history = History(Store.at(made.run.dir), "t", {}, generations, shipped={"generation": 0, "arm": "x"}, rejected=[])
    return FlywheelLoop(made, history, ())


@pytest.mark.parametrize(
    ("generations", "words", "reason"),
    [
        ([], (), None),
        ([generation(0)], (), None),
        ([generation(0)], ("flywheel.max_generations=1",), "budget of 1 generations"),
        ([generation(0)], ("flywheel.max_real_episodes=60",), "50 of 60 real episodes"),
        ([generation(0)], ("flywheel.max_real_episodes=70",), None),
        ([generation(0), generation(1, False)], (), None),
        ([generation(0), generation(1, False), generation(2, False)], (), "2 generations in a row brought no gain"),
        ([generation(0), generation(1, False), generation(2), failed(3)], ("flywheel.max_generations=9",), None),
        ([generation(0), failed(1), failed(2)], ("flywheel.max_generations=9",), "2 generations in a row failed"),
    ],
)
def test_it_stops_on_a_budget_or_on_no_gain(tmp_path, generations, words, reason):
    said = wheel(tmp_path, generations, *words).reason_to_stop()
    assert said is None if reason is None else reason in said


def test_hours_count_over_all_starts(tmp_path):
    turned = wheel(tmp_path, [generation(0)], "flywheel.max_hours=1")
    turned.history.seconds = 3601.0
    assert "1 hours" in turned.reason_to_stop()


def test_the_page_tells_promotions_failures_and_drift():
    tree = {
        "title": "Line 3",
        "generations": [generation(0, mpl=100.0), failed(1), generation(2, mpl=150.0)],
        "shipped": {"generation": 2, "arm": "trust_weighted"},
        "seconds": 9.0,
        "ended_by": "so it was",
        "rejected": [{"name": "a.npz", "print": "x", "reason": "no NPZ"}],
    }
    summary, page = flywheel_summary(tree), flywheel_page(tree)
    assert "went from 100 to 150" in summary["verdict"]
    assert "2 of 3 generations were promoted, 1 failed" in summary["verdict"]
    assert summary["real_episodes"] == 42 + 20
    for word in ("it &lt;is&gt; better", "it broke", "a.npz", "turned_away", "drifted", "so it was"):
        assert word in page
    assert page.count("<svg") == 4  # mpl, errors, return, trust
    assert "No generation" in flywheel_summary(tree | {"generations": []})["verdict"]


@pytest.fixture
def drop(tmp_path):
    write_episodes(Store.at(tmp_path / "drop" / "monday"), collect_episodes(CELL, 0, range(12)))
    return tmp_path / "drop"


@pytest.fixture
def watching(tmp_path, drop):
    made = config(
        tmp_path,
        "episodes.source=parquet",
        f"episodes.path={drop}",
        "environment.id=none",
        "flywheel.source=folder",
        f"flywheel.folder={drop}",
        "flywheel.poll_s=0.01",
        "flywheel.wait_s=0",
    )
    return made, History.open(made)


def test_files_are_taken_once_and_what_is_none_is_told(watching, drop):
    made, history = watching
    assert watch_folder(made, history, 0)
    first = read_episodes(history.batch_of(0))
    assert {e.id.split("/")[0] for e in first} == {"monday"}
    assert {e.split for e in first} == {"train", "dev", "test"}
    assert not watch_folder(made, history, 1)
    write_episodes(Store.at(drop / "tuesday"), collect_episodes(CELL, 1, range(8)))
    write_episodes(Store.at(drop / "camera"), collect_episodes(EnvironmentConfig(max_steps=5), 2, range(2)))
    (drop / "notes.parquet").write_text("no data")
    (drop / ".hidden.parquet").write_text("not for us")
    assert watch_folder(made, history, 1)
    assert len(read_episodes(history.batch_of(1))) == 8
    told = {r["name"]: r["reason"] for r in History.read(history.store).rejected}
    assert set(told) == {"camera", "notes.parquet"}
    assert "of shapes" in told["camera"]
    assert not watch_folder(made, history, 2)
    assert len(history.rejected) == 2


def of_tasks(folder, tasks, seed):
    """Write episodes of the cell of these tasks in turn."""
    made = collect_episodes(CELL, seed, range(8))
    named = [replace(e, tags={**e.tags, "task": tasks[i % len(tasks)]}) for i, e in enumerate(made)]
    write_episodes(Store.at(folder), named)


def test_the_tasks_of_the_first_files_are_shown_by_all_states(watching, drop):
    made, history = watching
    shutil.rmtree(drop / "monday")
    of_tasks(drop / "monday", ["pick", "place"], 0)
    assert watch_folder(made, history, 0)
    first = read_episodes(history.batch_of(0))
    assert {e.tags["task"]: e.state[0, -2:].tolist() for e in first} == {"pick": [1, 0], "place": [0, 1]}
    of_tasks(drop / "tuesday", ["place"], 1)
    of_tasks(drop / "wednesday", ["fold"], 2)
    assert watch_folder(made, history, 1)
    assert all(e.state[0, -2:].tolist() == [0, 1] for e in read_episodes(history.batch_of(1)))
    (refused,) = history.rejected
    assert "has the task 'fold', which is none of pick, place" in refused["reason"]


def test_a_second_task_behind_a_first_generation_of_one_is_refused(watching, drop):
    made, history = watching
    shutil.rmtree(drop / "monday")
    of_tasks(drop / "monday", ["pick"], 0)
    assert watch_folder(made, history, 0)
    of_tasks(drop / "tuesday", ["place"], 1)
    of_tasks(drop / "wednesday", ["pick"], 2)
    assert watch_folder(made, history, 1)
    assert {e.tags["task"] for e in read_episodes(history.batch_of(1))} == {"pick"}
    (refused,) = history.rejected
    assert "has the task 'place', the first generation 'pick' alone" in refused["reason"]


def test_a_batch_without_its_mark_is_made_again(watching):
    made, history = watching
    watch_folder(made, history, 0)
    history.batch_of(0).delete("batch.json")
    assert not has_batch(history, 0)
    assert watch_folder(made, history, 0)


def test_fewer_than_wanted_do_not_begin_a_generation(watching):
    made, history = watching
    plan = made.flywheel.model_copy(update={"min_episodes": 13})
    assert not watch_folder(made.model_copy(update={"flywheel": plan}), history, 0)
    assert not has_batch(history, 0)


def test_a_plan_is_made_once_and_its_run_is_an_ordinary_one(watching):
    made, history = watching
    watch_folder(made, history, 0)
    plan = make_plan(made, history, 0)
    own = generation_config(made, history, 0, plan)
    assert own.run.dir == history.run_of(0).root
    assert own.episodes.source == "parquet"
    assert own.reuse.model_dump() == {"encoder": "", "dynamics": "", "trust": ""}
    assert make_plan(made, history, 0) == plan
    taken = plan | {"homes": {"encoder": 0, "dynamics": 1, "trust": 0}}
    assert generation_config(made, history, 1, taken).reuse.encoder == history.run_of(0).root
    assert generation_config(made, history, 1, taken).reuse.dynamics == ""


def test_data_that_failed_a_generation_are_left_out_of_the_next(watching):
    made, history = watching
    watch_folder(made, history, 0)
    for number in (1, 2):
        store = history.batch_of(number)
        write_episodes(store, read_episodes(history.batch_of(0)))
        store.write_json({"episodes": 12}, "batch.json")
    history.generations = [failed(0), failed(1) | {"kind": "DataError"}]
    assert make_plan(made, history, 2)["batches"] == [0, 2]


def test_another_config_and_another_kind_of_folder_are_refused(tmp_path):
    made = config(tmp_path)
    history = History.open(made)
    history.save()
    assert History.open(config(tmp_path, "flywheel.max_generations=9", "report.title=x")).title == "x"
    with pytest.raises(ConfigError, match=r"different: policy"):
        History.open(config(tmp_path, "policy.num_steps=9"))
    History.open(config(tmp_path, "policy.num_steps=9", "run.on_change=redo"))
    history.store.write_json({"format": 7}, "flywheel.json")
    with pytest.raises(DataError, match="damaged"):
        History.open(made)
    history.store.write_json({}, "run.json")
    with pytest.raises(ConfigError, match="holds a run"):
        History.open(made)
