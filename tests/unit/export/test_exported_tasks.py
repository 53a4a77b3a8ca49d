"""The task of exported episodes, real and synthetic, whatever else their state says."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from episode_strategies import make_episode

from phaseb.episodes.actions import ActionScale
from phaseb.episodes.shards import write_episodes, write_trajectories
from phaseb.episodes.tasks import with_task
from phaseb.episodes.trajectories import Trajectories
from phaseb.export import episodes as module
from phaseb.export.episodes import exported_episodes
from phaseb.runtime.storage import Store

STEPS, DIMS = 5, 3
NAMES = ("pick", "place", "pick", "place")
SCALE = ActionScale(np.full(2, -1.0), np.full(2, 1.0))


def latents(ids, **lineage) -> Trajectories:
    rng, count = np.random.default_rng(0), len(ids)
    return Trajectories(
        z=rng.normal(size=(count, STEPS + 1, DIMS)).astype(np.float32),
        actions=np.zeros((count, STEPS, 2), np.float32),
        rewards=np.zeros((count, STEPS), np.float32),
        terminals=np.zeros((count, STEPS), np.float32),
        lengths=np.full(count, STEPS),
        ids=tuple(ids),
        splits=("train",) * count,
        lineage=lineage,
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    """What an export reads of a run: `make(state, tasks)` with states of so many columns beside the condition."""

    def make(state, tasks):
        store = Store.at(tmp_path)
        names = NAMES if tasks else ("pick",) * 4
        real = [
            with_task(
                replace(make_episode(f"e{i}", STEPS, seed=i, state=state, frames=True), tags={"task": name}), tasks
            )
            for i, name in enumerate(names)
        ]
        write_episodes(store.folder("episodes"), [replace(one, split="train") for one in real])
        store.write_json(tasks or None, "tasks.json")
        ids = [one.id for one in real]
        write_trajectories(store.folder("latents"), latents(ids, **{"tag/task": names}))
        write_trajectories(store.folder("synthetic", "gru"), latents(["s0", "s1"], start_episode=("e1", "e0")))
        size = state + len(tasks)
        decoder = SimpleNamespace(decoder=size, decode=lambda z: np.full((len(z), size), 0.5, np.float32))
        none = SimpleNamespace(decoder=None)
        monkeypatch.setattr(module, "EncoderModel", SimpleNamespace(load=lambda _: decoder if size else none))
        return store

    return make


@pytest.mark.parametrize("state", [3, 0])
@pytest.mark.parametrize("tasks", [("pick", "place"), ()])
def test_synthetic_episodes_are_of_the_task_of_their_start(run, state, tasks):
    made = [one.episode for one in exported_episodes(run(state, tasks), SCALE, "all", own_tasks=True)]
    assert [one.id for one in made] == ["e0", "e1", "e2", "e3", "s0", "s1"]
    names = (*NAMES, "place", "pick") if tasks else ("pick",) * 6
    assert tuple(one.tags["task"] for one in made) == names
    # Latents stand in for the state of those that were seen by camera alone.
    assert {one.state.shape for one in made} == {(STEPS + 1, state or DIMS)}


def test_frames_alone_come_back_without_the_task_in_a_state(run):
    store = run(0, ("pick", "place"))
    made = [one.episode for one in exported_episodes(store, SCALE, "real", own_tasks=True)]
    assert all(one.state is None and one.frames is not None for one in made)
    kept = [one.episode for one in exported_episodes(store, SCALE, "real")]
    assert [one.state[0].tolist() for one in kept] == [[1, 0], [0, 1], [1, 0], [0, 1]]
