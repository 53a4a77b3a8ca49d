"""Every row and every unit of reward that was recorded becomes part of an episode, or is counted and said."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from episode_strategies import make_episode
from lerobot_writer import write_lerobot
from recorded_sums import check_sums, read

import phaseb
from phaseb.config.data import EpisodesConfig
from phaseb.config.root import Config
from phaseb.episodes.formats.npz import write_npz
from phaseb.episodes.inventory import summarise
from phaseb.episodes.shards import write_episodes
from phaseb.errors import ConfigError, DataError
from phaseb.pipeline.sizes import read_facts
from phaseb.pipeline.stage import StageContext
from phaseb.runtime.logs import LOGGER
from phaseb.runtime.storage import Store
from phaseb.stages import collect

FIXTURES = Path(__file__).parents[3] / "fixtures"
RNG = np.random.default_rng(4)


def goals(path: Path, following: bool = False, single: bool = False) -> EpisodesConfig:
    """D4RL's antmaze: 6 trajectories of 9 rows, at the goal in rows 4 to 6 of three of them, where nothing resets."""
    rows = np.arange(54)
    reached = (rows // 9 % 2 == 0) & (rows % 9 >= 4) & (rows % 9 <= (4 if single else 6))
    seen = RNG.standard_normal((55, 3))
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = seen[:54], RNG.standard_normal((54, 2))
        file["rewards"], file["terminals"], file["timeouts"] = reached * 1.0, reached, rows % 9 == 8
        file["infos/goal"] = np.zeros((54, 2))
        if following:
            file["next_observations"] = seen[1:]
    return EpisodesConfig(source="hdf5", path=str(path))


def test_a_goal_that_resets_nothing_ends_no_trajectory(tmp_path: Path) -> None:
    line = check_sums(goals(tmp_path / "d.hdf5"), 6, 54, 9.0)
    assert line == (
        "imported 6 of 6 episodes, 48 of 54 rows; left out: the last action of each episode: no observation follows it,"
        " so its reward is added to the step before (6 rows), columns infos/goal; 9 terminals do not end their "
        "trajectory, which goes on: only timeouts cut"
    )
    found, _ = read(goals(tmp_path / "d.hdf5"))
    assert [e.rewards.sum() for e in found] == [3, 0, 3, 0, 3, 0]
    assert not any(e.terminated for e in found)


@pytest.mark.parametrize("single", [False, True])
def test_next_observations_show_that_nothing_resets(tmp_path: Path, single: bool) -> None:
    line = check_sums(goals(tmp_path / "d.hdf5", following=True, single=single), 6, 54, 3.0 if single else 9.0)
    assert line.startswith("imported 6 of 6 episodes, 54 of 54 rows; left out: columns infos/goal; ")


def test_lone_rows_of_a_flat_file_are_counted(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["observations"], file["actions"] = np.ones((9, 2)), np.full((9, 1), 0.5)
        file["rewards"], file["terminals"] = np.arange(9.0), np.isin(np.arange(9), (3, 4, 8))
    config = EpisodesConfig(source="hdf5", path=str(tmp_path / "d.hdf5"))
    line = check_sums(config, 3, 9, 36.0)
    assert "episodes of one row that no observation follows (1 episodes, 1 rows, reward 4)" in line


def demos(path: Path, following: bool) -> EpisodesConfig:
    with h5py.File(path, "w") as file:
        for i, rows in enumerate((5, 1, 3)):
            for name, width in {"obs/pose": [2], "actions": [1], "rewards": []}.items():
                file[f"data/demo_{i}/{name}"] = RNG.standard_normal((rows, *width))
            file[f"data/demo_{i}/dones"] = np.arange(rows) == rows - 1
            file[f"data/demo_{i}/obs/front_image"] = np.zeros((rows, 8, 8, 3), np.uint8)
            if following:
                file[f"data/demo_{i}/next_obs/pose"] = np.ones((rows, 2))
        file["data/failed_3/actions"] = np.ones((4, 1))
    return EpisodesConfig(source="hdf5", path=str(path))


@pytest.mark.parametrize("following", [False, True])
def test_robomimic_demonstrations_add_up(tmp_path: Path, following: bool) -> None:
    config = demos(tmp_path / "d.hdf5", following)
    with h5py.File(tmp_path / "d.hdf5") as file:
        reward = sum(float(file[f"data/demo_{i}/rewards"][:].sum()) for i in range(3))
        lost = float(file["data/demo_1/rewards"][0])
    line = check_sums(config, 3, 9, reward)
    assert "groups data/failed_3, not called demo_*" in line
    assert "columns obs/front_image" in line
    single = f"demo_1, of one row that no observation follows (1 episodes, 1 rows, reward {lost:g})"
    assert (single in line) != following


def test_a_success_within_a_demonstration_ends_nothing_and_is_counted(tmp_path: Path) -> None:
    config = demos(tmp_path / "d.hdf5", True)
    with h5py.File(tmp_path / "d.hdf5", "a") as file:
        file["data/demo_0/dones"][2] = True
        reward = sum(float(file[f"data/demo_{i}/rewards"][:].sum()) for i in range(3))
    line = check_sums(config, 3, 9, reward)
    assert line.endswith("; 1 dones lie within a demonstration, which goes on: they end nothing")


def test_other_columns_of_actions_and_rewards_are_those_that_are_counted(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        for i in range(2):
            demo = file.create_group(f"data/demo_{i}")
            demo["obs/pose"], demo["absolute"] = RNG.standard_normal((5, 2)), np.ones((5, 1))
            demo["sparse"], demo["dones"], demo["won"] = np.ones(5), np.arange(5) == 4, np.ones(5)
    columns = {"action": ["absolute"], "reward": "sparse", "success": "won", "step_s": 0.1}
    config = EpisodesConfig(source="hdf5", path=str(tmp_path / "d.hdf5"), columns=columns)
    assert check_sums(config, 2, 10, 10.0).endswith("so its reward is added to the step before (2 rows)")


def test_an_aborted_demonstration_of_no_rows_is_counted(tmp_path: Path) -> None:
    config = demos(tmp_path / "d.hdf5", True)
    with h5py.File(tmp_path / "d.hdf5", "a") as file:
        del file["data/failed_3"]
        for name, width in {"obs/pose": [2], "next_obs/pose": [2], "actions": [1], "rewards": [], "dones": []}.items():
            file[f"data/demo_7/{name}"] = np.zeros((0, *width))
        reward = sum(float(file[f"data/demo_{i}/rewards"][:].sum()) for i in range(3))
    assert "demo_7, of no rows (1 episodes)" in check_sums(config, 4, 9, reward)


def lerobot(folder: Path, *lengths: int, **columns: Callable[[int, int], Any]) -> EpisodesConfig:
    """Episodes of a pose, what surrounds it, and columns that follow from (number, rows)."""
    made = []
    for i, rows in enumerate(lengths):
        plain = {"observation.state": (2,), "observation.environment_state": (3,), "action": (1,), "next.reward": ()}
        episode = {name: RNG.standard_normal((rows, *width)).astype(np.float32) for name, width in plain.items()}
        made.append(episode | {name.replace("_", ".", 1): make(i, rows) for name, make in columns.items()})
    return EpisodesConfig(source="lerobot", path=str(write_lerobot(folder, made)))


def last(number: int, rows: int) -> np.ndarray:
    return np.arange(rows) == rows - 1


def test_lerobots_one_row_episodes_are_left_out_and_counted(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    config = lerobot(tmp_path / "d", 4, 1, 3, next_done=last)
    tables = [pq.read_table(path) for path in sorted((tmp_path / "d").rglob("*.parquet"))]
    rewards = [float(np.sum(table["next.reward"].to_numpy())) for table in tables]
    line = check_sums(config, 3, 8, sum(rewards))
    assert f"episode-000001, of one row that no observation follows (1 episodes, 1 rows, reward {rewards[1]:g})" in line
    assert "next.done is taken as a time limit nowhere, elsewhere as an end" in line


def test_lerobots_episodes_of_no_rows_are_counted(tmp_path: Path) -> None:
    config = lerobot(tmp_path / "d", 4, 0, 3, next_done=last)
    line = check_sums(config, 3, 7, sum(_reward(tmp_path / "d")))
    assert "episode-000001, of no rows (1 episodes)" in line


def test_the_surroundings_are_part_of_a_state_and_other_columns_are_listed(tmp_path: Path) -> None:
    config = lerobot(tmp_path / "d", 4, 3, observation_effort=lambda i, n: np.ones((n, 2), np.float32), next_done=last)
    (episode, _), _ = read(config)
    assert episode.state is not None
    assert episode.state.shape == (4, 5)
    assert json.loads(episode.tags["state_columns"]) == [["state", 2], ["environment_state", 3]]
    assert "columns observation.effort" in check_sums(config, 2, 7, sum(_reward(tmp_path / "d")))


def _reward(folder: Path) -> list[float]:
    import pyarrow.parquet as pq

    return [float(pq.read_table(p)["next.reward"].to_numpy().sum()) for p in sorted(folder.rglob("*.parquet"))]


def ends(config: EpisodesConfig) -> list[bool]:
    return [episode.terminated for episode in read(config)[0]]


def test_lerobots_done_at_a_time_limit_is_no_end(tmp_path: Path) -> None:
    none = lambda i, n: np.zeros(n, bool)  # noqa: E731
    assert ends(lerobot(tmp_path / "a", 6, 4, 6, next_done=last)) == [False, True, False]
    assert ends(lerobot(tmp_path / "b", 6, 4, 5, next_done=last)) == [True, True, True]
    won = lerobot(tmp_path / "c", 6, 4, 6, next_done=last, next_success=lambda i, n: last(i, n) & (i == 2))
    assert ends(won) == [False, False, True]
    assert ends(lerobot(tmp_path / "d", 5, 4, next_done=last, next_truncated=lambda i, n: last(i, n) & (i == 0))) == [
        False,
        True,
    ]
    assert ends(lerobot(tmp_path / "e", 5, 4, next_done=last, next_terminated=none)) == [False, False]
    assert ends(lerobot(tmp_path / "f", 5, 5, next_terminated=last)) == [True, True]
    named = lerobot(tmp_path / "g", 6, 6, next_done=last).model_copy(
        update={"columns": EpisodesConfig().columns.model_copy(update={"terminal": "next.done"})}
    )
    assert ends(named) == [True, True]


def test_episodes_that_lerobots_meta_counts_and_does_not_list_are_said(tmp_path: Path) -> None:
    config = lerobot(tmp_path / "d", 4, 3, 5)
    listing = tmp_path / "d" / "meta" / "episodes.jsonl"
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[:2]))
    found, inventory = read(config)
    assert "imported 2 of 3 episodes, 5 of 12 rows; left out: " in summarise(inventory, 2, sum(map(len, found)))
    assert "1 episodes and 5 rows that the data count and do not hold" in summarise(inventory, 2, 5)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
def test_minari_adds_up(tmp_path: Path, data_format: str) -> None:
    expected = np.load(FIXTURES / f"minari-{data_format}-expected.npz")
    rewards = [float(expected[f"rewards-{i}"].sum()) for i in range(5)]
    shutil.copytree(FIXTURES / f"minari-{data_format}", tmp_path / "d")
    config = EpisodesConfig(source="minari", path=str(tmp_path / "d"))
    check_sums(config, 5, 25, sum(rewards))
    file = tmp_path / "d" / "data" / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"total_episodes": 3, "total_steps": 15}))
    line = check_sums(config, 5, 25, sum(rewards))
    assert f"episodes beyond total_episodes of metadata.json (2 episodes, 10 rows, reward {sum(rewards[3:]):g})" in line


def test_npz_rows_behind_a_terminal_are_counted(tmp_path: Path) -> None:
    reward = np.tile(np.isin(np.arange(8), (3, 4, 5)).astype(float), (3, 1))
    content = {"observations": np.ones((3, 9, 2)), "actions": np.full((3, 8, 1), 0.5), "rewards": reward}
    config = EpisodesConfig(source="npz", path=str(tmp_path / "d.npz"))
    np.savez(tmp_path / "d.npz", **content, terminals=reward, clock=np.ones((3, 8)))
    line = check_sums(config, 3, 24, 9.0)
    assert "'lengths', or its first terminal) that are not 0 (12 rows, reward 6), columns clock" in line
    np.savez(tmp_path / "d.npz", **content)
    assert check_sums(config, 3, 24, 9.0) == "imported 3 of 3 episodes, 24 of 24 rows"


@pytest.mark.parametrize("source", ["npz", "parquet"])
def test_own_formats_add_up(tmp_path: Path, source: str) -> None:
    episodes = [make_episode(f"e{i}", 3 + i, seed=i) for i in range(4)]
    if source == "npz":
        write_npz(Store.at(tmp_path), "d.npz", episodes)
    else:
        write_episodes(Store.at(tmp_path / "d.npz"), episodes, 3)
    reward = sum(float(e.rewards.astype(np.float64).sum()) for e in episodes)
    check_sums(EpisodesConfig(source=source, path=str(tmp_path / "d.npz")), 4, 18, reward)


def test_what_weights_do_not_take_is_said(tmp_path: Path) -> None:
    for name, number in (("a", 6), ("b", 2)):
        write_npz(Store.at(tmp_path), f"{name}.npz", [make_episode(f"e{i}", 3, seed=i) for i in range(number)])
    parts = [{"source": "npz", "path": str(tmp_path / f"{name}.npz")} for name in "ab"]
    found, inventory = read(EpisodesConfig(source="mixed", parts=parts))
    assert summarise(inventory, len(found), sum(map(len, found))) == (
        "imported 4 of 8 episodes, 12 rows; left out: what the weights of episodes.parts do not take (4 episodes)"
    )


def test_parts_in_another_order_are_refused(tmp_path: Path) -> None:
    pose = {"v": np.ones((4, 4, 1), np.float32), "x": np.zeros((4, 4, 1), np.float32)}
    content = {"actions": np.full((4, 3, 1), 0.5), "rewards": np.ones((4, 3)), **pose}
    np.savez(tmp_path / "a.npz", **content)
    orders = (["v", "x"], ["x", "v"])
    parts = [{"source": "npz", "path": str(tmp_path / "a.npz"), "columns": {"observation": o}} for o in orders]
    with pytest.raises(DataError, match="'x' lies elsewhere"):
        read(EpisodesConfig(source="mixed", parts=parts))


def test_episodes_read_by_the_library_are_counted_behind_the_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    LOGGER.addHandler(caplog.handler)
    try:
        episodes = phaseb.load_episodes(goals(tmp_path / "d.hdf5").path)
        next(episodes)
        assert not caplog.records
        list(episodes)
    finally:
        LOGGER.removeHandler(caplog.handler)
    (record,) = {(r.levelno, r.getMessage()) for r in caplog.records}
    assert record[0] == logging.WARNING
    assert record[1].startswith("imported 6 of 6 episodes, 48 of 54 rows; left out: ")


def test_the_library_says_which_formats_it_reads(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a,b\n")
    for path in (tmp_path / "mine.csv", tmp_path):
        with pytest.raises(
            ConfigError,
            match=r"of no format that can be recognised; set the source \(episodes.source\) to",
        ):
            phaseb.load_episodes(path)
    with pytest.raises(DataError, match=r"no such file or folder: .*gone; give the path of recordings"):
        phaseb.load_episodes(tmp_path / "gone")
    (tmp_path / "a.npz").touch()
    with pytest.raises(ConfigError, match=r"it holds a\.npz: give one of them, or several by episodes\.source=mixed"):
        phaseb.load_episodes(tmp_path)


def test_a_run_says_what_it_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = goals(tmp_path / "d.hdf5")
    whole = Config.model_validate(
        {
            "episodes": config.model_dump(),
            "environment": {"id": "none"},
            "resources": {"num_workers": 0, "num_tasks": 1},
            "synthesis": {"horizon": 4},
        }
    )
    LOGGER.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO):
            collect.execute(StageContext(whole, Store.at(tmp_path / "run"), "key", "collect"))
    finally:
        LOGGER.removeHandler(caplog.handler)
    ((level, line),) = {(r.levelno, r.getMessage()) for r in caplog.records if r.getMessage().startswith("imported ")}
    assert level == logging.WARNING
    assert line.startswith("imported 6 of 6 episodes, 48 of 54 rows; left out: ")


def test_recordings_of_cameras_alone_are_imported(tmp_path: Path) -> None:
    frames = RNG.integers(0, 256, (8, 7, 6, 5, 3)).astype(np.uint8)
    actions = RNG.uniform(-1, 1, (8, 6, 2)).astype(np.float32)
    np.savez(tmp_path / "d.npz", frames=frames, actions=actions, rewards=actions[..., 0])
    config = Config.model_validate(
        {
            "episodes": {"source": "npz", "path": str(tmp_path / "d.npz")},
            "environment": {"id": "none"},
            "resources": {"num_workers": 0, "num_tasks": 1},
        }
    )
    told = collect.execute(StageContext(config, Store.at(tmp_path / "run"), "key", "collect"))
    assert (told["episodes"], told["steps"]) == (8, 48)
    facts = read_facts(Store.at(tmp_path / "run"))
    assert facts is not None
    assert (facts.state_size, facts.frame_shape, facts.action_size) == (0, (6, 5, 3), 2)


def test_ends_that_lerobot_marks_within_an_episode_are_counted(tmp_path):
    """At the goal, many simulators set `next.done` in every row and record on."""
    episodes = [
        {
            "observation.state": RNG.standard_normal((9, 2)).astype(np.float32),
            "action": RNG.standard_normal((9, 1)).astype(np.float32),
            "next.reward": np.ones(9, np.float32),
            "next.done": np.arange(9) >= 9 - marked,
        }
        for marked in (0, 1, 4)
    ]
    path = write_lerobot(tmp_path / "d", episodes)
    said = check_sums(EpisodesConfig(source="lerobot", path=str(path)), 3, 27, 27)
    assert "next.done is set in 3 rows before the last of their episode, where it is ignored" in said
