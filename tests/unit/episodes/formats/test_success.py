"""Success flags make the rewards of recordings that have none; recorded rewards are kept."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces
from lerobot_writer import write_lerobot
from minari_writer import write_minari

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.success import NO_REWARDS, success_flags, success_rewards
from phaseb.episodes.sources import inventory_of, open_source
from phaseb.errors import DataError

LATE = np.array([0, 0, 0, 1, 0, 1])


def read(source: str, path: Path, **columns: Any) -> tuple[list[Episode], tuple[str, ...]]:
    found = open_source(EpisodesConfig(source=source, path=str(path), columns=columns, max_bytes=10**7))
    return list(found.read(range(len(found.entries())))), inventory_of(found).notes


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        (True, [0, 0, 0, 0, 0, 1]),
        (np.array([0.0]), [0, 0, 0, 0, 0, 0]),
        (LATE[:, None], [0, 0, 0, 1, 0, 1]),
        (np.append(0, LATE), [0, 0, 0, 1, 0, 1]),  # with the observations: flag t + 1 is what action t reached
        (np.append(1, LATE), [1, 0, 0, 1, 0, 1]),
    ],
)
def test_flags_come_by_episode_by_action_or_by_observation(values: Any, flags: list[int]) -> None:
    assert success_flags("ok", values, 6).tolist() == [bool(flag) for flag in flags]


@pytest.mark.parametrize("values", [np.full(6, 0.5), np.array([0, np.nan]), np.ones(4), np.ones((6, 2)), np.array("a")])
def test_other_flags_are_refused(values: Any) -> None:
    with pytest.raises(DataError, match=r"success flags 'ok' (have shape|are of type).*set episodes\.columns\.success"):
        success_flags("ok", values, 6)


def test_a_reward_is_paid_once() -> None:
    assert success_rewards(LATE.astype(bool)).tolist() == [0, 0, 0, 1, 0, 0]
    assert not success_rewards(np.zeros(3, bool)).any()


def arrays(**more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"observations": rng.random((3, 7, 2)), "actions": rng.random((3, 6, 1)), **more}


@pytest.mark.parametrize(
    ("success", "paid", "ended"),
    [
        (np.array([1, 0, 1]), [5, None, 3], [True, False, True]),
        (np.zeros(3), [None] * 3, [False] * 3),
        (np.stack([LATE, 0 * LATE, LATE]), [3, None, 3], [True, False, True]),
    ],
)
def test_npz(tmp_path: Path, success: Any, paid: list[int | None], ended: list[bool]) -> None:
    np.savez(tmp_path / "d.npz", **arrays(success=success, lengths=np.array([6, 6, 4])))
    episodes, notes = read("npz", tmp_path / "d.npz")
    assert [int(e.rewards.argmax()) if e.rewards.any() else None for e in episodes] == paid
    assert [e.terminated for e in episodes] == ended  # success in the last row ends the task, where nothing else does
    assert [e.metrics["good_units"] for e in episodes] == [int(one) for one in ended]
    assert any("rewards are made from success" in note for note in notes)


def test_recorded_rewards_and_ends_are_kept(tmp_path: Path) -> None:
    more = {"rewards": np.full((3, 6), 0.5), "terminals": np.zeros(3)}
    np.savez(tmp_path / "d.npz", **arrays(success=np.ones(3), **more))
    episodes, notes = read("npz", tmp_path / "d.npz")
    assert all((e.rewards == 0.5).all() and not e.terminated for e in episodes)
    assert notes == ()


def test_nothing_recorded_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **arrays())
    episodes, notes = read("npz", tmp_path / "d.npz")
    assert not any(e.rewards.any() or e.terminated for e in episodes)
    assert notes == (NO_REWARDS,)


@pytest.mark.parametrize("named", ["", "solved"])
def test_robomimic_without_rewards_and_dones(tmp_path: Path, named: str) -> None:
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        for i in range(3):
            demo = file.create_group(f"data/demo_{i}")
            demo["actions"], demo["obs/pose"] = np.ones((4, 1), np.float32), np.ones((5, 2))
            demo[named or "success"] = np.array([0, 0, 0, i > 0])
    episodes, notes = read("hdf5", tmp_path / "d.hdf5", success=named)
    assert [e.rewards.tolist() for e in episodes] == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert [e.terminated for e in episodes] == [False, True, True]
    assert notes == (f"rewards are made from {named or 'success'}: 1 at an episode's first step that is flagged",)


def test_d4rl_without_rewards(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["observations"], file["actions"] = np.ones((12, 3)), np.full((12, 2), 0.5)
        file["timeouts"], file["success"] = np.arange(12) % 4 == 3, np.arange(12) == 5
    episodes, notes = read("hdf5", tmp_path / "d.hdf5")
    assert [e.rewards.tolist() for e in episodes] == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert any("rewards are made from success" in note for note in notes)


@pytest.mark.parametrize("data_format", ["hdf5", "parquet"])
def test_minari_infos(tmp_path: Path, data_format: str) -> None:
    write_minari(tmp_path / "d", data_format, spaces.Box(-1, 1, (2,)), [np.zeros(2, np.float32)] * 5)
    if data_format == "hdf5":
        with h5py.File(tmp_path / "d" / "data" / "main_data.hdf5", "a") as file:
            del file["episode_0/rewards"]
            file["episode_0/infos/success"] = np.array([0, 0, 1, 1, 1], bool)
        (episode,), _ = read("minari", tmp_path / "d")
        assert episode.rewards.tolist() == [0, 1, 0, 0]
        assert episode.metrics["good_units"] == 1
    else:
        (episode,), _ = read("minari", tmp_path / "d")
        assert episode.rewards.tolist() == [1, 1, 1, 1]
        assert "good_units" not in episode.metrics


@pytest.mark.parametrize("per_episode", [True, False])
def test_lerobot_by_episode_and_by_row(tmp_path: Path, per_episode: bool) -> None:
    rows = {"observation.state": np.ones((6, 2), np.float32), "action": np.full((6, 1), 0.5, np.float32)}
    parts = [dict(rows), dict(rows)]
    if not per_episode:
        parts = [part | {"next.success": np.full(6, i, bool) & (np.arange(6) == 5)} for i, part in enumerate(parts)]
    folder = write_lerobot(tmp_path / "d", parts)
    if per_episode:
        meta = folder / "meta" / "episodes.jsonl"
        lines = [json.loads(line) | {"success": bool(i)} for i, line in enumerate(meta.read_text().splitlines())]
        meta.write_text("\n".join(map(json.dumps, lines)) + "\n")
    episodes, notes = read("lerobot", folder)
    assert [e.rewards.tolist() for e in episodes] == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert [e.terminated for e in episodes] == [False, True]
    assert any("rewards are made from" in note for note in notes)
