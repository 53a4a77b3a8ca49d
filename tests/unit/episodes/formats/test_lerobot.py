import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.formats.success import NO_REWARDS
from phaseb.episodes.sources import inventory_of, open_source
from phaseb.errors import DataError

FIXTURES = Path(__file__).parents[3] / "fixtures"
VERSIONS = ("v3", "v21")
CAMERA = "observation.images.top"
STEPS = (6, 4, 5, 7, 8)


def config(path: Path, **columns: Any) -> EpisodesConfig:
    return EpisodesConfig(source="lerobot", path=str(path), columns=columns)


def psnr(left: np.ndarray, right: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((left.astype(float) - right) ** 2)))


@pytest.fixture(params=VERSIONS)
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / f"lerobot-{request.param}", tmp_path / "d"))


def change_info(path: Path, **values: Any) -> None:
    file = path / "meta" / "info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_lerobot_wrote_is_read(version: str) -> None:
    expected = np.load(FIXTURES / f"lerobot-{version}-expected.npz")
    source = open_source(config(FIXTURES / f"lerobot-{version}", images=CAMERA))
    assert [name for name, _ in source.entries()] == [f"episode-{i:06d}" for i in range(5)]
    order = [3, 0, 4, 1, 2]
    for i, episode in zip(order, source.read(order), strict=True):
        rewards = expected[f"next.reward-{i}"][:, 0]
        np.testing.assert_array_equal(episode.state, expected[f"observation.state-{i}"])
        np.testing.assert_array_equal(episode.actions, expected[f"action-{i}"][:-1])
        np.testing.assert_array_equal(episode.rewards[:-1], rewards[:-2])
        np.testing.assert_allclose(episode.rewards[-1], rewards[-2] + rewards[-1], rtol=1e-6)
        assert episode.terminated == (i % 2 == 0)  # next.done without next.success is a time limit
        assert (episode.metrics["good_units"], episode.metrics["errors"]) == ((1, 0) if i % 2 == 0 else (0, 1))
        assert episode.metrics["duration_h"] == pytest.approx((STEPS[i] - 1) / 10 / 3600)
        assert episode.frames is not None
        pictures = expected[f"{CAMERA}-{i}"]
        assert psnr(episode.frames, pictures) > 40
        for step, frame in enumerate(episode.frames):  # each is nearer to its own picture than to any other
            assert np.argmax([psnr(frame, picture) for picture in pictures]) == step


@pytest.mark.parametrize("version", VERSIONS)
def test_frames_are_resized_while_they_are_decoded(version: str) -> None:
    (episode,) = open_source(config(FIXTURES / f"lerobot-{version}", images=CAMERA, image_size=16)).read([2])
    expected = np.load(FIXTURES / f"lerobot-{version}-expected.npz")[f"{CAMERA}-2"]
    small = expected.reshape(5, 16, 2, 16, 3, 3).mean((2, 4))
    assert episode.frames is not None
    assert episode.frames.shape == (5, 16, 16, 3)
    assert psnr(episode.frames, small) > 35


def test_the_state_alone_needs_no_video(copy: Path) -> None:
    shutil.rmtree(copy / "videos")
    assert [len(e) for e in open_source(config(copy)).read(range(5))] == [n - 1 for n in STEPS]
    with pytest.raises(DataError, match=r"no such file: .*\.mp4"):
        list(open_source(config(copy, images=CAMERA)).read([0]))


def test_damaged_and_short_videos_are_named(copy: Path) -> None:
    videos = sorted(copy.rglob("*.mp4"))
    for video in videos:
        video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(DataError, match=r"\.mp4 (cannot be decoded|has no frame at \d)"):
        list(open_source(config(copy, images=CAMERA)).read([4]))


def test_success_stands_in_for_a_missing_reward(copy: Path) -> None:
    info = json.loads((copy / "meta" / "info.json").read_text())
    del info["features"]["next.reward"]
    change_info(copy, features=info["features"])
    episodes = list(open_source(config(copy)).read(range(2)))
    assert [e.rewards.sum() for e in episodes] == [1.0, 0.0]
    del info["features"]["next.success"]
    change_info(copy, features=info["features"])
    silent = open_source(config(copy))
    assert not any(e.rewards.any() for e in silent.read(range(2)))
    assert NO_REWARDS in inventory_of(silent).notes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"codebase_version": "v9.0"}, "is of version v9.0; read are"),
        ({"fps": 0}, "impossible frame rate"),
        ({"data_path": "../../etc/passwd"}, "leaves its folder"),
        ({"data_path": "data/{episode_index.__class__}"}, "impossible frame rate or path"),
        ({"data_path": "data/{episode_index:0999999999d}"}, "impossible frame rate or path"),
        ({"data_path": "data/{other}.parquet"}, "other"),
        ({"features": None}, "damaged"),
    ],
)
def test_meta_that_makes_no_sense_is_named(copy: Path, values: dict[str, Any], message: str) -> None:
    change_info(copy, **values)
    with pytest.raises(DataError, match=message):
        list(open_source(config(copy)).read([0]))


def test_rows_that_are_missing_are_noticed(copy: Path) -> None:
    data = sorted(copy.glob("data/*/*.parquet"))
    shutil.copy(FIXTURES / "lerobot-v21" / "data" / "chunk-000" / "episode_000001.parquet", data[0])
    with pytest.raises(DataError, match="has 0 rows of it, meta says 6"):
        list(open_source(config(copy)).read([0]))


def test_an_episode_larger_than_allowed_is_refused(copy: Path) -> None:
    limited = config(copy, images=CAMERA).model_copy(update={"max_bytes": 25_000})
    with pytest.raises(DataError, match="unpack to 36864 bytes, more than 25000"):
        list(open_source(limited).read([4]))


def test_names_within_a_vector_are_kept_for_the_environment(copy: Path) -> None:
    (episode,) = open_source(config(copy)).read([0])
    assert json.loads(episode.tags["state_columns"]) == [["x", 1], ["y", 1], ["angle", 1]]


def test_a_video_of_more_frames_than_rows_is_read_at_the_times_of_the_rows(tmp_path: Path) -> None:
    """Frames between two rows are passed over: they took the place of a row's own."""
    from fractions import Fraction

    import av

    from phaseb.episodes.formats.video import decode_video
    from phaseb.runtime.storage import Store

    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for i in range(24):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 10 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = decode_video(Store.at(tmp_path), "film.mp4", 0.0, 8, 10, 0, 10**7)
    np.testing.assert_allclose(frames.mean((1, 2, 3)), 30 * np.arange(8), atol=6)


def test_a_line_of_json_ends_at_a_line_feed_only(tmp_path: Path) -> None:
    """Task names may hold characters that are line ends elsewhere, such as U+2028."""
    copy = Path(shutil.copytree(FIXTURES / "lerobot-v21", tmp_path / "d"))
    file = copy / "meta" / "episodes.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    named = [json.dumps(row | {"tasks": ["pick\u2028place\x85it\x0b"]}, ensure_ascii=False) for row in rows]
    file.write_text("\r\n".join(named), encoding="utf-8")
    assert len(open_source(config(copy)).entries()) == len(STEPS)


def test_rows_without_the_rewards_that_meta_lists_are_refused(copy: Path) -> None:
    file = next(iter(sorted((copy / "data").rglob("*.parquet"))))
    pq.write_table(pq.read_table(file).drop_columns(["next.reward"]), file)
    with pytest.raises(DataError, match=r"has no column 'next\.reward', which meta/info\.json lists: copy"):
        list(open_source(EpisodesConfig(source="lerobot", path=str(copy))).read(range(3)))
