"""A run on episodes of two tasks: policies see which task they have, and are measured in each."""

import json

import numpy as np
import pytest
import two_tasks
from program import strict_json, write_config
from two_tasks import BEST, STEPS, TASKS

from phaseb.config.data import EpisodesConfig
from phaseb.config.load import load_config
from phaseb.episodes.control_source import open_recordings
from phaseb.export.episodes import export_run
from phaseb.export.loader import evaluate_exported
from phaseb.export.onnx import export_policy

WORLD = {"id": "two_tasks:TwoTasks", "max_steps": STEPS}
SIZES = {
    "synthesis": {"num_episodes": 12, "horizon": STEPS},
    "policy": {"num_steps": 300, "width": 32},
    "evaluation": {"num_episodes": 20, "num_envs": 10},
    "arms": {"num_seeds": 1},
}


def words(folder, path, *more):
    return ("episodes.source=npz", f"episodes.path={path}", f"run.dir={folder / 'run'}", *more)


@pytest.fixture
def run(command, ray_up, tmp_path):
    path = two_tasks.write(tmp_path / "two.npz")
    told = command(
        "run", "--config", write_config(tmp_path, environment=WORLD, **SIZES), *words(tmp_path, path), "--json"
    )
    assert told.code == 0, told.err
    return tmp_path / "run", strict_json(told.out)


def test_a_clone_earns_in_both_tasks_what_none_can_that_does_not_know_the_task(run, tmp_path):
    folder, results = run
    assert json.loads((folder / "tasks.json").read_text()) == list(TASKS)
    by_task = results["tasks"]["behaviour_cloning"]
    assert {task: own["num_episodes"] for task, own in by_task.items()} == dict.fromkeys(TASKS, 10)
    earned = [by_task[task]["return"]["mean"] for task in TASKS]
    # Without the task, what is earned in one is lost in the other: the two sum to 0 at most.
    assert min(earned) > 0.4 * BEST
    assert np.mean(earned) == pytest.approx(results["arms"]["behaviour_cloning"]["return"]["mean"])
    held_out = results["held_out"]["tasks"]
    assert {task: own["num_episodes"] for task, own in held_out.items()} == dict.fromkeys(TASKS, 5)
    assert held_out["go left"]["arms"]["behaviour_cloning"]["mean"] < results["held_out"]["mean_action"]["mean"] / 2
    manifest = json.loads((folder / "bricks" / "manifest.json").read_text())
    assert [row["task"] for row in manifest["tasks"]] == list(TASKS)
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "By task" in page
    assert "the state says which of 2 tasks an episode has (episodes of each: go left (20), go right (20))" in page
    check_exports(folder, tmp_path)


def check_exports(folder, target):
    """Formats that name tasks get them in place of the columns of the state; synthetic episodes have their start's."""
    export_run(str(folder), str(target / "npz"), "npz")
    made = np.load(target / "npz" / "episodes.npz")
    assert made["observations"].shape[2] == 2
    synthetic = made["is_synthetic"][:, 0]
    assert synthetic.sum() > 0
    tasks = dict(zip(made["ids"].tolist(), made["tasks"].tolist(), strict=True))
    starts = [json.loads(text).get("start_episode") for text in made["lineage"][synthetic].tolist()]
    assert [tasks[start] for start in starts] == made["tasks"][synthetic].tolist()
    export_run(str(folder), str(target / "lerobot"), "lerobot", "real")
    again = open_recordings(EpisodesConfig(source="lerobot", path=str(target / "lerobot")), 0)
    assert again.tasks == TASKS
    episode = next(iter(again.read([0])))
    assert episode.state.shape[1] == 4
    assert episode.tags["task"] == made["tasks"][0]


def test_an_exported_policy_is_given_its_task(run, tmp_path):
    folder, results = run
    exported = export_policy(str(folder), str(tmp_path / "policy"))
    card = json.loads((tmp_path / "policy" / "model_card.json").read_text())
    assert card["interface"]["tasks"] == list(TASKS)
    assert "The last 2 numbers of `state` say the task" in (tmp_path / "policy" / "MODEL_CARD.md").read_text()
    config = load_config(folder / "config.yaml", [])
    measured = evaluate_exported(exported["path"], config)["measured"]
    assert measured["return"] == pytest.approx(results["arms"][exported["arm"]]["return"]["mean"], rel=1e-3)


def test_an_environment_that_does_not_say_the_task_is_refused_before_training(command, tmp_path):
    path = two_tasks.write(tmp_path / "two.npz")
    refused = command("run", "--dry-run", *words(tmp_path, path, "environment.id=two_tasks:Silent"))
    assert refused.code == 2
    (line,) = refused.complaint
    assert "two_tasks:Silent does not say the task of its episodes" in line


def test_a_task_of_one_episode_is_named_before_training(command, tmp_path):
    names = np.array([*["go left"] * 20, *["go right"] * 19, "stand"])
    path = two_tasks.write(tmp_path / "lone.npz", tasks=names)
    refused = command("run", "--dry-run", *words(tmp_path, path, "environment.id=none"))
    assert refused.code == 3
    (line,) = refused.complaint
    assert "2 training episodes of each of 3 tasks" in line
    assert "1 of 'stand'" in line
