"""What is said of all episodes of a data set together."""

from dataclasses import replace

import numpy as np
import pytest
from episode_strategies import make_episode

from phaseb.episodes.shards import iter_episodes, write_episodes
from phaseb.errors import DataError
from phaseb.pipeline.dataset_stats import DatasetStats
from phaseb.runtime.storage import Store
from phaseb.stages.collect import choose_action_scale


def of_rate(hz, name="a", steps=20, **tags):
    return replace(
        make_episode(name, steps, seed=ord(name)), split="train", metrics={"duration_h": steps / hz / 3600}, tags=tags
    )


def of_task(task, name):
    return replace(make_episode(name, 5, seed=ord(name)), split="train", tags={"task": task} if task else {})


def test_episodes_of_two_rates_are_named():
    (said,) = DatasetStats.of([of_rate(10, "a"), of_rate(30, "b"), of_rate(20, "c")]).notices()
    assert said.startswith("a step is not as long in all episodes: a was recorded at 10 Hz, b at 30 Hz; import them")
    assert DatasetStats.of([of_rate(10, "a"), of_rate(10.5, "b"), make_episode_without_rate("c")]).notices() == []


def make_episode_without_rate(name):
    return replace(make_episode(name, 5, seed=ord(name)), split="train")


def test_a_shorter_last_step_of_control_is_no_other_rate():
    control = '{"asked_hz": 2, "recorded_hz": 10, "rows": 5, "action": "chunk"}'
    made = [of_rate(2, "a", control=control), of_rate(3, "b", 3, control=control)]
    assert DatasetStats.of(made).notices() == []


def test_episodes_without_a_task_beside_those_of_one_are_counted():
    (said,) = DatasetStats.of([of_task("pick", "a"), of_task("", "b"), of_task("", "c")]).notices()
    assert said.startswith("2 episodes name no task, 1 the task 'pick': all count as of one")
    assert DatasetStats.of([of_task("pick", "a"), of_task("pick", "b")]).notices() == []


def test_two_tasks_that_no_state_says_are_refused():
    with pytest.raises(DataError, match=r"episode b has the task 'place', others 'pick', .* needs tasks\(\) too"):
        DatasetStats.of([of_task("pick", "a"), of_task("place", "b")])


def test_actions_that_never_change_are_named():
    episodes = [replace(make_episode(name, 5, seed=ord(name)), split="train", tags={}) for name in "ab"]
    still = [replace(e, actions=np.where([True, False], np.float32(0.3), e.actions)) for e in episodes]
    assert DatasetStats.of(episodes).notices() == []
    (said,) = DatasetStats.of(still).notices()
    assert said.startswith("action dimensions 0 of 2 never change in the training episodes")


def test_synthetic_episodes_are_counted():
    episodes = [replace(make_episode_without_rate(name), source="synthetic") for name in "ab"]
    (said,) = DatasetStats.of([*episodes, make_episode_without_rate("c")]).notices()
    assert said.startswith("2 episodes are synthetic (is_synthetic)")


def test_episodes_that_repeat_others_are_counted():
    once = [make_episode_without_rate(name) for name in "abc"]
    again = [replace(once[0], id="d"), replace(once[0], id="e", split="test"), replace(once[1], id="f", split="dev")]
    (said,) = DatasetStats.of([*once, *again]).notices()
    assert said.startswith("3 episodes repeat others, 2 of them in another split")
    assert DatasetStats.of(once).notices() == []


@pytest.mark.parametrize(("what", "size"), [("state", 4), ("actions", 3)])
def test_sizes_that_differ_are_named_with_their_episodes(what, size):
    episodes = [make_episode_without_rate("a"), replace(make_episode("b", 5, **{what: size}), split="train")]
    with pytest.raises(DataError, match=rf"{what}s? have {size - 1} \(a\), {size} \(b\) dimensions; import them apart"):
        choose_action_scale("none", None, DatasetStats.of(episodes))
    cameras = replace(make_episode("c", 5, state=0), split="train")
    choose_action_scale("none", None, DatasetStats.of([episodes[0], cameras]))


def test_frames_that_differ_are_named_with_their_episodes_read_or_not(tmp_path):
    frames = {name: np.zeros((6, side, 4, 3), np.uint8) for name, side in (("a", 5), ("b", 4))}
    episodes = [replace(make_episode_without_rate(name), frames=own) for name, own in frames.items()]
    write_episodes(Store.at(tmp_path), episodes)
    for read in (episodes, list(iter_episodes(Store.at(tmp_path), frames=False))):
        with pytest.raises(DataError, match=r"frames are 5x4x3 \(a\), 4x4x3 \(b\); set episodes\.columns\.image_size"):
            choose_action_scale("none", None, DatasetStats.of(read))
