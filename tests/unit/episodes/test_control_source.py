"""Imports in steps of `episodes.control_hz`: every row and reward is in a step or counted, whatever the format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episode_strategies import make_episode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lerobot_writer import write_lerobot
from pydantic import ValidationError

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.control import Control, control_of_tags
from phaseb.episodes.control_source import open_in_steps, open_recordings
from phaseb.episodes.formats.npz import save_arrays
from phaseb.episodes.importer import import_episodes
from phaseb.episodes.inventory import Inventory, summarise
from phaseb.episodes.shards import read_episodes, write_episodes
from phaseb.episodes.sources import open_source
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.storage import Store


def write_npz(folder: Path, lengths: list[int], ended: list[bool], held: bool = False, name: str = "a.npz") -> Path:
    """Rewards are whole numbers, so that sums are exact."""
    rng, most = np.random.default_rng(len(lengths)), max(lengths)
    inside = np.arange(most) < np.array(lengths)[:, None]
    actions = rng.standard_normal((len(lengths), most, 2)).astype(np.float32)
    arrays = {
        "observations": rng.standard_normal((len(lengths), most + 1, 3)).astype(np.float32),
        "actions": (actions[:, np.arange(most) // 5 * 5] if held else actions) * inside[..., None],
        "rewards": rng.integers(-9, 10, (len(lengths), most)).astype(np.float32) * inside,
        "lengths": np.array(lengths),
        "terminals": np.array(ended),
    }
    save_arrays(Store.at(str(folder)), name, arrays)
    return folder / name


def config(path: Path, source: str = "npz", **changes: Any) -> EpisodesConfig:
    columns = {"step_s": 0.02} if source == "npz" else {}
    columns |= changes.pop("columns", {})
    return EpisodesConfig(
        **{"source": source, "path": str(path), "control_hz": 10.0, "columns": columns, "rows_per_shard": 4, **changes}
    )


def imported(asked: EpisodesConfig, folder: Path, known: Control | None = None) -> tuple[list, Inventory]:
    found: list[Inventory] = []
    target = Store.at(str(folder))
    import_episodes(asked, target, 0, counted=found.append, known=known)
    return read_episodes(target), found[0]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 23), st.booleans()), min_size=6, max_size=10))
def test_rows_and_rewards_that_go_in_come_out_or_are_counted(tmp_path: Path, episodes: list[tuple[int, bool]]) -> None:
    lengths = [length for length, _ in episodes] + [20, 20, 20, 20]
    ended = [over for _, over in episodes] + [False] * 4
    path = write_npz(tmp_path, lengths, ended)
    stored = np.load(path)
    recorded = [stored["rewards"][i, :length] for i, length in enumerate(lengths)]
    made, inventory = imported(config(path), tmp_path / "out")
    steps = sum(map(len, made))
    left_rows = sum(part.rows for part in inventory.left_out)
    assert steps + inventory.shared_rows + left_rows == sum(lengths) == inventory.rows
    assert len(made) + sum(part.episodes for part in inventory.left_out) == len(lengths) == inventory.episodes
    earned = sum(one.rewards.sum(dtype=np.float64) for one in made)
    assert earned + sum(part.reward for part in inventory.left_out) == sum(map(np.sum, recorded))
    short = [i for i, (length, over) in enumerate(zip(lengths, ended, strict=True)) if length < 5 and not over]
    assert len(made) == len(lengths) - len(short)
    assert sum(one.terminated for one in made) == sum(ended)
    line = summarise(inventory, len(made), steps)
    assert f"{steps + inventory.shared_rows} of {sum(lengths)} rows as {steps} steps" in line
    assert "do not hold" not in line


def test_training_episodes_decide_and_a_later_import_keeps_what_was_decided(tmp_path: Path) -> None:
    held = config(write_npz(tmp_path, [30] * 10, [False] * 10, held=True))
    first, said = imported(held, tmp_path / "out")
    assert first[0].actions.shape == (6, 2)
    assert "one action is repeated" in said.notes[-1]
    chosen = control_of_tags(first[0].tags)
    assert chosen == Control(10, 50, 5, "repeat")
    later = config(write_npz(tmp_path, [30] * 10, [False] * 10, name="b.npz"))
    assert imported(later, tmp_path / "new")[0][0].actions.shape == (6, 10)
    again, said = imported(later, tmp_path / "again", chosen)
    assert again[0].actions.shape == (6, 2)
    assert "chosen by an earlier import" in said.notes[-1]
    other = config(tmp_path / "b.npz", columns={"step_s": 0.025})
    with pytest.raises(DataError, match=r"b.npz was recorded at 40 Hz, so a step is 4 rows, .* earlier import 5 of 50"):
        imported(other, tmp_path / "out", chosen)
    coarser = config(tmp_path / "b.npz", control_hz=5)
    assert imported(coarser, tmp_path / "five", chosen)[0][0].actions.shape == (3, 20), "another rate decides anew"


def test_held_out_episodes_do_not_decide(tmp_path: Path) -> None:
    """Only the training episodes are held through a step; the others change at every row."""
    path = write_npz(tmp_path, [30] * 10, [False] * 10, held=True)
    arrays = dict(np.load(path))
    roles = open_recordings(config(path), 0).roles
    outside = [i for i, role in enumerate(roles) if role != "train"]
    arrays["actions"][outside] = np.random.default_rng(5).standard_normal((len(outside), 30, 2))
    save_arrays(Store.at(str(tmp_path)), "a.npz", arrays)
    opened = open_recordings(config(path), 0)
    assert opened.roles == roles
    assert opened.control is not None
    assert opened.control.action == "repeat"
    every = open_in_steps(config(path), None)
    assert next(iter(every.read([0]))).actions.shape == (6, 10), "all of them together are not"


def test_lerobot_says_its_rate_and_its_last_row_is_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [
        {
            "observation.state": rng.standard_normal((rows, 2)).astype(np.float32),
            "action": rng.standard_normal((rows, 1)).astype(np.float32),
            "next.reward": np.ones(rows, np.float32),
            "next.done": np.arange(rows) == rows - 1,
            "next.truncated": np.full(rows, i < 4),
        }
        for i, rows in enumerate([23, 23, 23, 24, 23, 23, 23, 4])
    ]
    made, inventory = imported(config(write_lerobot(tmp_path / "d", parts, fps=30), "lerobot"), tmp_path / "out")
    assert control_of_tags(made[0].tags) == Control(10, 30, 3, "chunk")
    # 23 rows are 22 actions; the last reward is added to the 22nd, which a time limit leaves out and an end does not
    assert [len(one) for one in sorted(made, key=lambda one: one.id)] == [7, 7, 7, 7, 8, 8, 8, 1]
    assert sum(one.rewards.sum() for one in made) + sum(part.reward for part in inventory.left_out) == 166
    told = summarise(inventory, len(made), sum(map(len, made)))
    assert "rows behind the last whole step of 3 rows, at a time limit (5 rows, reward 9)" in told
    assert "imported 8 of 8 episodes, 153 of 166 rows as 53 steps" in told
    np.testing.assert_array_equal(made[0].metrics["duration_h"], (len(parts[0]["action"]) - 1) / 30 / 3600)


@pytest.mark.parametrize("hz", [0, -5, float("nan"), float("inf")])
def test_rates_that_are_none_are_refused(hz: float) -> None:
    with pytest.raises(ValidationError, match="control_hz"):
        EpisodesConfig(source="npz", path="x.npz", control_hz=hz)
    with pytest.raises(ValidationError, match="control_hz is for recorded episodes, source=gymnasium makes its own"):
        EpisodesConfig(source="gymnasium", control_hz=10)


def test_recordings_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = write_npz(tmp_path, [30] * 8, [False] * 8)
    with pytest.raises(
        ConfigError, match=r"a\.npz: episode a-000000 does not say how long a row is, .* set episodes.columns.step_s"
    ):
        open_recordings(config(path, columns={"step_s": 0}), 0)
    with pytest.raises(ConfigError, match="control_hz=80 is above the 50 Hz"):
        open_recordings(config(path, control_hz=80), 0)
    with pytest.raises(DataError, match=r"holds no episode of 50 rows, a step of episodes.control_hz=1"):
        open_recordings(config(path, control_hz=1), 0)
    other = write_npz(tmp_path, [30] * 8, [False] * 8, name="b.npz")
    parts = [
        {"source": "npz", "path": str(one), "columns": {"step_s": step_s}}
        for one, step_s in ((path, 0.02), (other, 0.04))
    ]
    mixed = EpisodesConfig(source="mixed", parts=parts, control_hz=10)
    with pytest.raises(DataError, match=r"mixed: episode 1-b-000000 was recorded at 25 Hz, 0-a-000000 at 50 Hz"):
        open_recordings(mixed, 0)
    same = EpisodesConfig(source="mixed", parts=[parts[0], parts[0] | {"path": str(other)}], control_hz=10)
    assert len(next(iter(open_recordings(same, 0).source.read([12])))) == 6
    assert not (tmp_path / "out").exists()


def test_steps_that_a_run_wrote_are_taken_as_they_are(tmp_path: Path) -> None:
    made, _ = imported(config(write_npz(tmp_path, [30] * 10, [False] * 10)), tmp_path / "out")
    for hz in (None, 10.0):
        again = open_recordings(config(tmp_path / "out", "parquet", control_hz=hz), 0)
        read = list(again.source.read(range(10)))
        assert [len(one) for one in read] == [6] * 10
        assert [one.tags["control"] for one in read] == [made[0].tags["control"]] * 10
    with pytest.raises(ConfigError, match=r"holds steps of 10 Hz, made with episodes.control_hz=10: set that"):
        open_recordings(config(tmp_path / "out", "parquet", control_hz=5), 0)


def test_hours_say_the_rate_of_episodes_that_were_collected(tmp_path: Path) -> None:
    episodes = [make_episode(f"e{i}", 30, seed=i, metrics={"duration_h": 30 * 0.1 / 3600}) for i in range(8)]
    write_episodes(Store.at(str(tmp_path / "p")), episodes)
    opened = open_recordings(config(tmp_path / "p", "parquet", control_hz=5), 0)
    assert opened.control is not None
    assert (opened.control.rows, opened.control.recorded_hz) == (2, pytest.approx(10))


def test_success_is_earned_and_ends_in_its_step(tmp_path: Path) -> None:
    """Flags make the reward before rows become steps: 1 in all, in the step that holds the row."""
    path = write_npz(tmp_path, [23] * 8, [False] * 8)
    arrays = {name: rows for name, rows in np.load(path).items() if name not in ("rewards", "terminals")}
    arrays["success"] = np.zeros((8, 23), np.float32)
    arrays["success"][::2, 21:] = 1
    save_arrays(Store.at(str(tmp_path)), "a.npz", arrays)
    made, _ = imported(config(path), tmp_path / "out")
    for one in made:
        won = int(one.id[-1]) % 2 == 0
        assert one.rewards.tolist() == [0, 0, 0, 0, *([1] if won else [])]
        assert (one.terminated, one.metrics["good_units"]) == (won, won)


def test_the_import_is_not_begun_anew_and_is_where_the_choice_differs(tmp_path: Path) -> None:
    asked = config(write_npz(tmp_path, [30] * 10, [False] * 10))
    imported(asked, tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    imported(asked, tmp_path / "out")
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    made, _ = imported(asked, tmp_path / "out", Control(10, 50, 5, "repeat"))
    assert {one.actions.shape for one in made} == {(6, 2)}


def test_as_recorded_without_the_setting(tmp_path: Path) -> None:
    path = write_npz(tmp_path, [30] * 10, [False] * 10)
    plain = config(path, control_hz=None)
    made, inventory = imported(plain, tmp_path / "out")
    for one, other in zip(made, open_source(plain).read(range(10)), strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
        assert "control" not in one.tags
    assert inventory.shared_rows == 0
    assert json.loads(plain.model_dump_json())["control_hz"] is None
