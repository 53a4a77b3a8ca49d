import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorded_sums import check_sums

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.sources import open_source
from phaseb.errors import ConfigError, DataError

FIXTURES = Path(__file__).parents[3] / "fixtures"
FORMATS = ("hdf5", "arrow", "parquet")


def config(data_format: str, path: Path | None = None, **columns: Any) -> EpisodesConfig:
    where = path or FIXTURES / f"minari-{data_format}"
    return EpisodesConfig(source="minari", path=str(where), columns=columns)


@pytest.mark.parametrize("data_format", FORMATS)
def test_what_minari_wrote_is_read_as_minari_reads_it(data_format: str) -> None:
    expected = np.load(FIXTURES / f"minari-{data_format}-expected.npz")
    columns = {} if data_format == "parquet" else {"images": "observations/camera"}
    source = open_source(config(data_format, **columns))
    assert [name for name, _ in source.entries()] == [f"episode-{i:06d}" for i in range(5)]
    for i, episode in enumerate(source.read(range(5))):
        state = np.concatenate([expected[f"goal-{i}"], expected[f"position-{i}"]], axis=1)
        np.testing.assert_array_equal(episode.state, state)
        np.testing.assert_array_equal(episode.actions, expected[f"actions-{i}"])
        np.testing.assert_array_equal(episode.rewards, expected[f"rewards-{i}"].astype(np.float32))
        assert episode.terminated == (i % 2 == 0)
        if columns:
            np.testing.assert_array_equal(episode.frames, expected[f"camera-{i}"])


def test_columns_are_chosen_ordered_and_frames_resized() -> None:
    chosen = {"observation": ["observations/position", "observations/goal"], "image_size": 8, "step_s": 36}
    (episode,) = open_source(config("arrow", images="observations/camera", **chosen)).read([3])
    expected = np.load(FIXTURES / "minari-arrow-expected.npz")
    np.testing.assert_array_equal(episode.state, np.concatenate([expected["position-3"], expected["goal-3"]], axis=1))
    assert episode.frames is not None
    assert episode.frames.shape == (5, 8, 8, 3)
    halves = expected["camera-3"].astype(float).reshape(5, 8, 2, 8, 2, 3).mean((2, 4))
    assert np.abs(episode.frames - halves)[:, 1:-1].max() <= 1.5  # a smooth ramp shrinks to its means
    assert episode.metrics == {"duration_h": 0.04}


def test_one_episode_can_be_read_without_the_others(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "minari-parquet", tmp_path / "d")
    shutil.rmtree(tmp_path / "d" / "data" / "1")
    source = open_source(config("", tmp_path / "d"))
    assert len(next(source.read([2]))) == 7
    with pytest.raises(DataError, match=r"data/1: lacks its \.parquet file"):
        next(source.read([1]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"observation": "observations/velocity"}, "no column 'observations/velocity'; it has .*observations/goal"),
        ({"images": "observations/top"}, "no column 'observations/top'"),
        ({"images": "observations/position"}, "camera 'observations/position' is float32"),
        ({"reward": "payoff"}, "no column 'payoff'"),
        ({"action": ["actions", "observations/goal"]}, "columns differ in length: actions 5, observations/goal 6"),
    ],
)
@pytest.mark.parametrize("data_format", FORMATS)
def test_columns_that_are_not_there_are_named(data_format: str, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(open_source(config(data_format, **columns)).read([0]))


def test_folders_that_are_not_minaris_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_source(config("", tmp_path))
    (tmp_path / "data").mkdir()
    for meta, message in (([], "not of Minari"), ({"total_episodes": 0}, "no episodes")):
        (tmp_path / "data" / "metadata.json").write_text(json.dumps(meta))
        with pytest.raises(DataError, match=message):
            open_source(config("", tmp_path))


def test_an_episode_larger_than_allowed_is_refused() -> None:
    for data_format in ("hdf5", "arrow"):
        small = config(data_format, images="observations/camera").model_copy(update={"max_bytes": 1024})
        with pytest.raises(DataError, match="unpack"):
            list(open_source(small).read([0]))


def test_a_missing_package_is_a_config_error_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    monkeypatch.delitem(__import__("sys").modules, "phaseb.episodes.formats.hdf5", raising=False)
    monkeypatch.delitem(__import__("sys").modules, "phaseb.episodes.formats.hdf5_file", raising=False)
    with pytest.raises(ConfigError, match=r'h5py: pip install "phaseb\[hdf5\]"'):
        open_source(EpisodesConfig(source="hdf5", path=str(tmp_path / "x.hdf5")))


def test_episodes_without_a_step_are_left_out_and_counted(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "minari-hdf5", tmp_path / "d")
    with h5py.File(tmp_path / "d" / "data" / "main_data.hdf5", "a") as file:
        number = len(file["episode_1/rewards"])
        for name in ("actions", "rewards", "terminations", "truncations"):
            kept = file[f"episode_1/{name}"][:0]
            del file[f"episode_1/{name}"]
            file[f"episode_1/{name}"] = kept
        reward = sum(float(file[f"episode_{i}/rewards"][:].sum()) for i in range(5))
    meta = tmp_path / "d" / "data" / "metadata.json"
    known = json.loads(meta.read_text())
    meta.write_text(json.dumps(known | {"total_steps": known["total_steps"] - number}))
    source = open_source(config("hdf5", tmp_path / "d"))
    assert [name for name, _ in source.entries()] == [f"episode-{i:06d}" for i in (0, 2, 3, 4)]
    assert [episode.id for episode in source.read([1, 3])] == ["episode-000002", "episode-000004"]
    said = check_sums(config("hdf5", tmp_path / "d"), 5, known["total_steps"] - number, reward)
    assert "episode-000001, of no steps (1 episodes)" in said


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("data_format", ["arrow", "parquet"])
def test_tables_without_a_step_are_left_out_and_counted(tmp_path: Path, data_format: str, rows: int) -> None:
    """Minari pads the steps of a table to its observations: an episode without a step is one row, or none."""
    shutil.copytree(FIXTURES / f"minari-{data_format}", tmp_path / "d")
    (path,) = (tmp_path / "d" / "data" / "1").glob(f"*.{data_format}")
    table = pq.read_table(path) if data_format == "parquet" else pa.ipc.open_file(path.read_bytes()).read_all()
    if data_format == "parquet":
        pq.write_table(table[:rows], path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table[:rows])
    source = open_source(config(data_format, tmp_path / "d"))
    assert [name for name, _ in source.entries()] == [f"episode-{i:06d}" for i in (0, 2, 3, 4)]
    assert [episode.id for episode in source.read([1])] == ["episode-000002"]
    whole = list(open_source(config(data_format, FIXTURES / f"minari-{data_format}")).read([0, 2, 3, 4]))
    meta = tmp_path / "d" / "data" / "metadata.json"
    known, steps = json.loads(meta.read_text()), sum(map(len, whole))
    meta.write_text(json.dumps(known | {"total_steps": steps}))
    reward = sum(float(episode.rewards.sum()) for episode in whole)
    assert "episode-000001, of no steps" in check_sums(config(data_format, tmp_path / "d"), 5, steps, reward)


@pytest.mark.parametrize("lacking", [0, 2])
def test_an_episode_without_the_rewards_of_the_others_is_refused(tmp_path: Path, lacking: int) -> None:
    shutil.copytree(FIXTURES / "minari-hdf5", tmp_path / "d")
    with h5py.File(tmp_path / "d" / "data" / "main_data.hdf5", "a") as file:
        del file[f"episode_{lacking}/rewards"]
    with pytest.raises(DataError, match="column 'rewards', which the first episode"):
        list(open_source(config("hdf5", tmp_path / "d")).read(range(5)))
