"""The task of an episode: named by the data, shown by the state, kept by splits, asked of the environment."""

from collections import Counter
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import two_tasks
from episode_strategies import make_episode
from two_tasks import TASKS

from phaseb.collection.environments import make_environment
from phaseb.collection.gymnasium import collect_gymnasium_episodes
from phaseb.config.data import EnvironmentConfig, EpisodesConfig
from phaseb.config.load import load_config
from phaseb.episodes.control_source import open_recordings
from phaseb.episodes.importer import import_episodes
from phaseb.episodes.shards import read_episodes, shard_name, write_shard
from phaseb.episodes.sources import open_source
from phaseb.episodes.splits import choose_splits
from phaseb.episodes.state_columns import from_tag
from phaseb.episodes.tasks import count_by_task, much_alike, tasks_of_tags, with_task, without_task
from phaseb.errors import ConfigError, DataError
from phaseb.pipeline.dataset_stats import DatasetStats
from phaseb.pipeline.stage import StageContext
from phaseb.pipeline.task_requirements import task_notes
from phaseb.runtime.storage import Store
from phaseb.stages import collect
from phaseb.stages.collect import environment_spec, show_tasks


def config(path, source="npz", **other):
    return EpisodesConfig(source=source, path=str(path), **other)


def world(name="TwoTasks", tasks=TASKS, number=6):
    chosen = EnvironmentConfig(id=f"two_tasks:{name}", max_steps=two_tasks.STEPS)
    environment = make_environment(chosen, number, None, tasks)
    assert environment is not None
    return environment


def test_an_import_shows_each_task_behind_the_state(tmp_path):
    path, target = two_tasks.write(tmp_path / "two.npz"), Store.at(tmp_path / "shards")
    recorded = np.load(path)
    import_episodes(config(path), target, 3)
    episodes = list(read_episodes(target))
    assert len(episodes) == 40
    for episode in episodes:
        number = int(episode.id[-2:])
        task = TASKS[number % 2]
        assert episode.tags["task"] == task
        assert episode.state is not None
        np.testing.assert_array_equal(episode.state[:, :2], recorded["observations"][number])
        np.testing.assert_array_equal(episode.state[:, 2:], np.tile(np.eye(2)[TASKS.index(task)], (13, 1)))
        assert from_tag(episode.tags) == [("state", 2), ("task: go left", 1), ("task: go right", 1)]
        assert tasks_of_tags(episode.tags) == TASKS


def test_what_was_written_with_tasks_is_read_with_them_once(tmp_path):
    path, first, second = two_tasks.write(tmp_path / "two.npz"), tmp_path / "a", tmp_path / "b"
    import_episodes(config(path), Store.at(first), 3)
    import_episodes(config(first, "parquet"), Store.at(second), 8)
    one, other = list(read_episodes(Store.at(first))), list(read_episodes(Store.at(second)))
    for before, after in zip(one, other, strict=True):
        np.testing.assert_array_equal(before.state, after.state)
        assert (before.tags, before.split) == (after.tags, after.split)
    bare = without_task(one[0])
    assert bare.state is not None
    assert bare.state.shape == (13, 2)
    assert tasks_of_tags(bare.tags) == ()
    np.testing.assert_array_equal(with_task(bare, TASKS).state, one[0].state)


def test_one_task_changes_nothing(tmp_path):
    path = two_tasks.write(tmp_path / "one.npz", tasks=np.array(["go left"] * 40))
    opened = open_recordings(config(path), 0)
    episode = next(iter(opened.read([0])))
    assert opened.tasks == ()
    assert episode.state is not None
    assert episode.state.shape[1] == 2
    plain = open_recordings(config(two_tasks.write(tmp_path / "none.npz", tasks=None)), 0)
    assert plain.roles == open_recordings(replace_path(path, tmp_path / "none.npz"), 0).roles


def replace_path(old, new):
    """The same file under another name, so that ids agree."""
    new.write_bytes(old.read_bytes())
    return config(new)


def test_numbers_are_tasks_too(tmp_path):
    path = two_tasks.write(tmp_path / "numbers.npz", tasks=np.arange(40) % 3)
    assert open_recordings(config(path), 0).tasks == ("0", "1", "2")


def test_empty_names_are_no_task(tmp_path):
    opened = open_recordings(config(two_tasks.write(tmp_path / "none.npz", tasks=np.array(["", " "] * 20))), 0)
    assert opened.tasks == ()
    assert "task" not in next(iter(opened.read([1]))).tags


def test_episodes_without_a_task_among_others_are_refused(tmp_path):
    names = np.array([*["go left"] * 20, *["go right"] * 18, "", "  "])
    with pytest.raises(DataError, match=r"2 episodes name no task \(some-000038, some-000039\).*go left, go right"):
        open_recordings(config(two_tasks.write(tmp_path / "some.npz", tasks=names)), 0)
    episode = next(iter(open_source(config(tmp_path / "some.npz")).read([0])))
    with pytest.raises(DataError, match="episode some-000000 has the task 'up', which is none of go left, go right"):
        with_task(replace(episode, tags={"task": "up"}), TASKS)


def test_the_tasks_of_mixed_sources_are_those_of_their_parts(tmp_path):
    left, right = (
        {"source": "npz", "path": str(two_tasks.write(tmp_path / f"{i}.npz", 10, tasks=np.array([name] * 10)))}
        for i, name in enumerate(TASKS)
    )
    opened = open_recordings(EpisodesConfig.model_validate({"source": "mixed", "parts": [left, right]}), 0)
    assert opened.tasks == TASKS
    assert {(one.id[0], one.tags["task"]) for one in opened.read(range(20))} == {("0", TASKS[0]), ("1", TASKS[1])}
    bare = {"source": "npz", "path": str(two_tasks.write(tmp_path / "bare.npz", 10, tasks=None))}
    one_named = EpisodesConfig.model_validate({"source": "mixed", "parts": [left, bare]})
    assert open_recordings(one_named, 0).tasks == (), "one task is no condition, whoever names it"
    with pytest.raises(DataError, match="10 episodes name no task"):
        open_recordings(EpisodesConfig.model_validate({"source": "mixed", "parts": [left, right, bare]}), 0)


def test_what_runs_of_other_tasks_wrote_says_all_tasks_in_a_mixture(tmp_path):
    new = two_tasks.write(tmp_path / "new.npz", 12)
    parts = [{"source": "npz", "path": str(new)}]
    for name, tasks in (("a", TASKS), ("b", ("stand", "turn"))):
        path = two_tasks.write(tmp_path / f"{name}.npz", 12, tasks=np.array(tasks * 6))
        import_episodes(config(path), Store.at(tmp_path / name), 3)
        parts.append({"source": "parquet", "path": str(tmp_path / name)})
    opened = open_recordings(EpisodesConfig.model_validate({"source": "mixed", "parts": parts[1:] + parts[:1]}), 0)
    assert opened.tasks == (*TASKS, "stand", "turn")
    for episode in opened.read(range(36)):
        assert episode.state.shape[1] == 6
        assert episode.state[0, 2:].tolist() == [float(episode.tags["task"] == task) for task in opened.tasks]


class Named:
    """A source of one's own whose tasks are as given."""

    given: ClassVar[list] = []

    def __init__(self, _: EpisodesConfig) -> None:
        self._episodes = [make_episode(f"e{i}", 5) for i in range(6)]

    def entries(self):
        return [(one.id, "") for one in self._episodes]

    def tasks(self):
        return self.given

    def read(self, indices):
        return (self._episodes[i] for i in indices)


@pytest.mark.parametrize(
    ("given", "said"),
    [(["a"] * 5, "5 tasks for 6 entries"), ([1, 2] * 3, "the task 1, which is no text"), ([None] * 6, None)],
)
def test_tasks_of_a_source_of_ones_own_are_checked(monkeypatch, given, said):
    monkeypatch.setattr(Named, "given", given)
    asked = EpisodesConfig(source=f"{__name__}:Named")
    if said is None:
        assert open_recordings(asked, 0).tasks == ()
        return
    with pytest.raises(DataError, match=said):
        open_recordings(asked, 0)


class Unnamed(Named):
    """The same, whose episodes have tasks that it does not list."""

    tasks = None

    def read(self, indices):
        return (replace(self._episodes[i], tags={"task": "ab"[i % 2]}) for i in indices)


def test_an_import_whose_tasks_no_state_says_leaves_nothing_behind(tmp_path):
    words = [f"episodes.source={__name__}:Unnamed", "environment.id=none", f"run.dir={tmp_path}"]
    context = StageContext(load_config(None, [*words, "resources.num_tasks=1"]), Store.at(tmp_path), "key", "collect")
    with pytest.raises(DataError, match=r"needs tasks\(\) too"):
        collect.execute(context)
    assert list(tmp_path.rglob("*.parquet")) == []


def test_tasks_that_an_environment_names_while_episodes_are_collected_are_shown(tmp_path):
    chosen, target = EnvironmentConfig(id="two_tasks:Stubborn", max_steps=two_tasks.STEPS), Store.at(tmp_path)
    episodes = collect_gymnasium_episodes(chosen, 0, range(12), "random")
    for i in range(2):
        write_shard(target, shard_name(i, 2), [replace(e, split="train") for e in episodes[6 * i : 6 * i + 6]], "s")
    for _ in range(2):  # after a kill it is done again
        show_tasks(target, [shard_name(i, 2) for i in range(2)], "s")
    shown = list(read_episodes(target))
    assert {one.tags["task"] for one in shown} == set(TASKS)
    for before, after in zip(episodes, shown, strict=True):
        assert after.state is not None
        np.testing.assert_array_equal(after.state[:, :2], before.state)
        assert after.state[:, 2:].argmax(1).tolist() == [TASKS.index(after.tags["task"])] * (len(after) + 1)


def test_odd_names_of_tasks_stay_one_line_and_whole(tmp_path):
    names = ["pick\nup", "\x1b[2Jpick", "x" * 500, "pick \u2192 place", "caf\u00e9", "cafe\u0301"]
    path = two_tasks.write(tmp_path / "odd.npz", 48, tasks=np.array(names * 8))
    opened = open_recordings(config(path), 0)
    assert opened.tasks == tuple(sorted(names)), "the names themselves stay as they are"
    said = count_by_task([name for name in names for _ in range(2)])
    assert said.isprintable()
    assert r"pick\nup (2 episodes)" in count_by_task(["pick\nup"] * 2)
    assert len(said) < 300
    facts = DatasetStats.of(opened.read(range(48))).facts()
    notes = list(task_notes(facts))
    assert all(note.isprintable() for note in notes)
    assert any(r"the tasks 'cafe\u0301' and 'caf\xe9' are much alike" in note for note in notes)


def test_tasks_that_are_much_alike_are_named():
    names = [
        "Pick up the cube.",
        "pick up  the cube",
        "pick up the cubes",
        "place",
        "1",
        "-1",
        "1.5",
        "",
        "\u30ab",
        "\uff76",
    ]
    assert much_alike(names) == [("Pick up the cube.", "pick up  the cube"), ("\u30ab", "\uff76")]


def splits_of(counts, lengths=20, **other):
    tasks = [task for task, count in counts.items() for _ in range(count)]
    entries = [(f"e{i}", "") for i in range(len(tasks))]
    steps = [lengths] * len(tasks) if lengths else None
    chosen = choose_splits(entries, config("x", **other), 0, steps, tasks)
    return {task: Counter(role for role, name in zip(chosen, tasks, strict=True) if name == task) for task in counts}


def test_every_task_has_its_share_of_each_split():
    found = splits_of({"a": 40, "b": 10, "c": 4}, test_fraction=0.2, dev_fraction=0.1)
    assert found["a"] == {"test": 8, "dev": 4, "train": 28}
    assert found["b"] == {"test": 2, "dev": 1, "train": 7}
    assert found["c"] == {"test": 1, "dev": 1, "train": 2}


def test_a_task_of_few_episodes_trains_with_all_of_them():
    assert splits_of({"a": 40, "b": 3})["b"] == {"train": 3}
    none_large = splits_of({"a": 3, "b": 3, "c": 3})
    assert sum(none_large.values(), Counter()) == {"test": 2, "dev": 1, "train": 6}


def test_long_episodes_of_a_task_are_held_out_sparingly():
    # 1,000 and 500 steps are enough for both tasks together, so 500 and 250 for each.
    found = splits_of({"a": 10, "b": 10}, lengths=1000, test_fraction=0.3, dev_fraction=0.3)
    assert found == {task: {"test": 1, "dev": 1, "train": 8} for task in "ab"}


def test_the_environment_is_asked_for_each_task_and_says_it():
    environment = world()
    seen = environment.reset(range(10, 16))
    assert environment.task_numbers.tolist() == [0, 1] * 3
    np.testing.assert_array_equal(seen["state"][:, 2:], np.eye(2)[[0, 1] * 3])
    assert environment.state_size == 4
    observation, rewards, *_ = environment.step(np.ones((6, 1), np.float32))
    np.testing.assert_allclose(rewards, [-0.2, 0.2] * 3, rtol=1e-6)
    np.testing.assert_array_equal(observation["state"][:, 2:], seen["state"][:, 2:])
    environment.close()


def test_what_the_environment_says_counts_and_not_what_it_was_asked():
    environment = world("Stubborn", number=20)
    environment.reset(range(20))
    numbers = environment.task_numbers.copy()
    assert numbers.tolist() != [0, 1] * 10
    assert 3 < numbers.sum() < 17
    _, rewards, *_ = environment.step(np.ones((20, 1), np.float32))
    np.testing.assert_array_equal(rewards > 0, numbers == 1)


def test_an_environment_may_number_its_tasks():
    environment = world("Numbered", ("0", "1"))
    environment.reset(range(6))
    assert environment.task_numbers.tolist() == [0, 1] * 3


def test_an_environment_that_draws_its_tasks_is_asked_at_more_seeds():
    def spec(name):
        words = [f"environment.id=two_tasks:{name}", "evaluation.first_seed=0", "evaluation.num_episodes=20"]
        return environment_spec(load_config(None, [*words, "environment.max_steps=12"]), None, TASKS)

    assert spec("Stubborn").shown["state_size"] == 4
    with pytest.raises(ConfigError, match="says the task 'jump'"):
        spec("Rare")


def test_an_environment_that_takes_no_options_is_named():
    with pytest.raises(DataError, match=r"failed on reset with options=\{'task': 'go left'\}, which it may ignore"):
        world("Closed").reset(range(6))


@pytest.mark.parametrize(
    ("name", "said"),
    [("Silent", "does not say the task of its episodes"), ("Renamed", "says the task 'go up'")],
)
def test_an_environment_that_names_no_known_task_is_refused(name, said):
    with pytest.raises(ConfigError, match=said) as refused:
        world(name).reset(range(6))
    assert "the recorded episodes have go left, go right" in str(refused.value)
    assert "\n" not in str(refused.value)
