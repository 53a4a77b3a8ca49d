import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from episode_strategies import make_episode

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.export import Exported
from phaseb.episodes.formats.lerobot_export import CAMERAS, write_lerobot
from phaseb.episodes.formats.lerobot_statistics import ImageStatistics, column_statistics
from phaseb.episodes.parquet_file import read_table
from phaseb.episodes.sources import inventory_of, open_source
from phaseb.errors import DataError
from phaseb.runtime.storage import Store


def filmed(episode: Episode, side: int = 33) -> Episode:
    """With frames of sharp edges and strong colours that move, at a size no codec likes."""
    frames = np.full((len(episode) + 1, side, side, 3), 230, np.uint8)
    for t, frame in enumerate(frames):
        frame[10:20, 2 * t : 2 * t + 8] = (200, 30, 40)
        frame[22:26, 3 + t] = (20, 60, 220)
    return dataclasses.replace(episode, frames=frames)


def some(film: bool = False) -> list[Exported]:
    episodes = [make_episode(f"e{i}", 4 + i, seed=i, terminated=i == 1) for i in range(4)]
    episodes[2] = dataclasses.replace(episodes[2], source="synthetic")
    exported = [Exported(filmed(e) if film else e) for e in episodes]
    exported[2] = dataclasses.replace(
        exported[2], trust=np.full(6, 0.5, np.float32), weight=np.full(6, 0.25, np.float32), lineage={"model": "abc"}
    )
    return exported


def test_states_actions_and_rewards_come_back_equal_to_the_bit(tmp_path: Path) -> None:
    assert write_lerobot(Store.at(tmp_path), some(), fps=4) == 4
    source = open_source(EpisodesConfig(source="lerobot", path=str(tmp_path)))
    for before, after in zip(some(), source.read(range(4)), strict=True):
        for field in ("state", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(before.episode, field), getattr(after, field))
        assert (after.terminated, after.source) == (before.episode.terminated, before.episode.source)
        assert after.metrics["duration_h"] == pytest.approx(len(after) / 4 / 3600)


def test_ends_come_back_at_any_length(tmp_path: Path) -> None:
    ends = [True, False, True, False, True]
    made = [Exported(make_episode(f"e{i}", 6, seed=i, terminated=end)) for i, end in enumerate(ends)]
    write_lerobot(Store.at(tmp_path), made, fps=4)
    source = open_source(EpisodesConfig(source="lerobot", path=str(tmp_path)))
    assert [one.terminated for one in source.read(range(5))] == ends
    assert not [note for note in inventory_of(source).notes if "time limit" in note]


def test_video_comes_back_within_35_db(tmp_path: Path) -> None:
    write_lerobot(Store.at(tmp_path), some(film=True), fps=4)
    source = open_source(EpisodesConfig(source="lerobot", path=str(tmp_path), columns={"images": f"{CAMERAS}camera"}))
    for before, after in zip(some(film=True), source.read(range(4)), strict=True):
        assert after.frames is not None
        assert before.episode.frames is not None
        error = after.frames.astype(float) - before.episode.frames[:-1]
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 35


def test_without_cameras_the_state_is_there_for_lerobots_act(tmp_path: Path) -> None:
    write_lerobot(Store.at(tmp_path / "states"), some(), fps=4)
    rows = read_table(Store.at(tmp_path / "states"), "data/chunk-000/file-000.parquet")
    assert rows["observation.environment_state"].equals(rows["observation.state"])
    features = json.loads((tmp_path / "states" / "meta" / "info.json").read_text())["features"]
    assert features["observation.environment_state"]["info"] == {"copy_of": "observation.state"}
    assert features["observation.environment_state"]["shape"] == features["observation.state"]["shape"]
    assert "observation.environment_state" in json.loads((tmp_path / "states" / "meta" / "stats.json").read_text())
    write_lerobot(Store.at(tmp_path / "filmed"), some(film=True), fps=4)
    filmed = read_table(Store.at(tmp_path / "filmed"), "data/chunk-000/file-000.parquet")
    assert "observation.environment_state" not in filmed.column_names


def test_trust_weight_and_lineage_are_kept(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    write_lerobot(store, some(), fps=4)
    rows = read_table(store, "data/chunk-000/file-002.parquet")
    assert rows["is_synthetic"].to_pylist() == [True] * 6
    assert rows["weight"].to_pylist() == [0.25] * 6
    assert read_table(store, "data/chunk-000/file-000.parquet")["weight"].to_pylist() == [1.0] * 4
    meta = read_table(store, "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["phaseb/source"] for row in meta] == ["real", "real", "synthetic", "real"]
    assert json.loads(meta[2]["phaseb/lineage"]) == {"model": "abc"}
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in meta] == [(0, 4), (4, 9), (9, 15), (15, 22)]


def test_statistics_are_numpys_own() -> None:
    rng = np.random.default_rng(0)
    column = rng.standard_normal((50, 3))
    found = column_statistics(column)
    np.testing.assert_allclose(found["std"], column.std(0))
    np.testing.assert_allclose(found["q90"], np.quantile(column, 0.9, axis=0))
    frames = rng.integers(0, 256, (7, 5, 6, 3)).astype(np.uint8)
    images = ImageStatistics()
    images.add(frames[:3])
    images.add(frames[3:])
    shaped = images.summary()
    pixels = frames.reshape(-1, 3) / 255
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(np.array(shaped[name])[:, 0, 0], getattr(pixels, name)(0))
    assert ImageStatistics().summary() == {}


def test_what_lerobot_cannot_hold_is_said(tmp_path: Path) -> None:
    for episodes, message in (
        ([], "no episodes"),
        ([Exported(make_episode("a", 3, actions=0))], "episode a lacks actions"),
        ([Exported(make_episode("a", 3)), Exported(make_episode("b", 3, state=4))], "episode b differs"),
    ):
        with pytest.raises(DataError, match=message):
            write_lerobot(Store.at(tmp_path), episodes, 4)
        assert not (tmp_path / "meta" / "info.json").exists()
