"""`phaseb inspect` tells tasks and their episodes, and takes what is constant within an episode for no fault."""

from pathlib import Path

import numpy as np
import pytest
from faulty_recordings import arm_episodes, write_npz

from phaseb.config.data import EpisodesConfig
from phaseb.config.load import load_config
from phaseb.episodes.importer import import_episodes
from phaseb.episodes.shards import read_episodes
from phaseb.episodes.sources import recognise
from phaseb.inspection.inspection import Inspection, inspect
from phaseb.inspection.page import lines, summary
from phaseb.inspection.residuals import independent_columns
from phaseb.latents.observations import examine_observations
from phaseb.runtime.storage import Store

NAMES = np.array(["pick", "place", "pick"] * 8)
COUNTS = {"pick": 16, "place": 8}


def look(path: Path) -> Inspection:
    source, place = recognise(str(path))
    return inspect(load_config(None, [f"episodes.source={source}", f"episodes.path={place}", "environment.id=none"]))


def alarms(found: Inspection) -> list[str]:
    return [str(one) for one in found.findings if one.severity != "note"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_npz(tmp_path_factory.mktemp("arm") / "arm.npz", arm_episodes(), tasks=NAMES)


def test_tasks_are_told_with_their_episodes(recordings: Path) -> None:
    found = look(recordings)
    assert alarms(found) == []
    assert "tasks: pick (16 episodes), place (8)" in summary(found)
    assert found.to_json()["schema"]["tasks"] == COUNTS
    assert found.facts is not None
    assert {task: sum(splits.values()) for task, splits in found.facts.tasks.items()} == COUNTS
    assert found.facts.state_size == 12
    assert any("the state says which of 2 tasks an episode has" in line for line in lines(found))


def test_the_columns_of_a_condition_are_no_fault(recordings: Path, tmp_path: Path) -> None:
    import_episodes(EpisodesConfig(source="npz", path=str(recordings)), Store.at(tmp_path / "episodes"), 0)
    found = look(tmp_path / "episodes")
    assert alarms(found) == []
    assert found.survey is not None
    assert found.survey.names[-2:] == ("task: pick", "task: place")


def test_an_environment_that_cannot_be_asked_leaves_the_recordings_inspected(recordings: Path) -> None:
    words = ["episodes.source=npz", f"episodes.path={recordings}", "environment.id=Pendulum-v1"]
    found = inspect(load_config(None, words))
    (error,) = [one for one in found.findings if one.severity == "error" and one.kind == "environment"]
    assert "environment Pendulum-v1 does not say the task of its episodes" in error.text
    assert found.survey is not None
    assert len(found.survey.lengths) == 24


def test_episodes_without_a_task_among_others_leave_the_recordings_inspected(tmp_path: Path) -> None:
    names = np.array(["pick", "place", ""] * 8)
    found = look(write_npz(tmp_path / "arm.npz", arm_episodes(), tasks=names))
    (error,) = [one for one in found.findings if one.kind == "splits"]
    assert error.text.startswith("8 episodes name no task")
    assert "tasks: pick (8 episodes), place (8)" in summary(found)


def test_a_recorded_embedding_is_kept_like_any_other_column(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    episodes = arm_episodes()
    for one, name in zip(episodes, NAMES, strict=True):
        embedding = table[int(name == "place")]
        one["state"] = np.concatenate([one["state"], np.tile(embedding, (len(one["state"]), 1))], axis=1)
    path = write_npz(tmp_path / "arm.npz", episodes)
    found = look(path)
    assert alarms(found) == []
    assert found.facts is not None
    assert found.facts.still_columns == ()
    assert found.facts.tasks == {}
    import_episodes(EpisodesConfig(source="npz", path=str(path)), Store.at(tmp_path / "episodes"), 0)
    assert examine_observations(list(read_episodes(Store.at(tmp_path / "episodes")))) == []


def test_columns_that_repeat_what_others_say_of_an_episode_are_left_out_of_the_prediction() -> None:
    rng = np.random.default_rng(0)
    moving = [rng.normal(size=(9, 2)) for _ in range(8)]
    task, mass = np.arange(8.0) % 2, rng.normal(size=8)
    states = [
        np.column_stack([m, np.tile([t, 1 - t, 3 * t + 2, w, 7.0], (9, 1))])
        for m, t, w in zip(moving, task, mass, strict=True)
    ]
    kept = independent_columns(states)
    assert len(kept) == 5
    assert {0, 1, 5, 6} < set(kept)
    assert independent_columns(moving) == [0, 1]
