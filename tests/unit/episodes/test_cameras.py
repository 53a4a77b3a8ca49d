"""Several cameras: read, resized, kept apart in one array, and refused in one line where one of them is wrong."""

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
from lerobot_writer import write_lerobot

from phaseb.config.data import ColumnsConfig, EpisodesConfig
from phaseb.episodes.cameras import camera_names, join_cameras, short_camera, split_cameras
from phaseb.episodes.control import Control
from phaseb.episodes.control_source import open_recordings
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats import episode_builder, video
from phaseb.episodes.formats.episode_builder import Layout, read_columns
from phaseb.episodes.formats.export import Exported
from phaseb.episodes.formats.lerobot_export import write_lerobot as export_lerobot
from phaseb.episodes.importer import SHARD_BYTES, episodes_of_shard
from phaseb.episodes.sources import open_source
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

ROWS = 8
TOP, WRIST, SIDE = (f"observation.images.{name}" for name in ("top", "wrist", "side"))
CAMERAS = {TOP: (48, 64, 1.0, 0), WRIST: (32, 32, 1.0, 90), SIDE: (24, 40, 0.5, 180)}
"""Height, width, frames a row, and the least level of each camera's even pictures."""


def film(path: Path, height: int, width: int, fps: float, levels: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(fps).limit_denominator(100))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i, level in enumerate(levels):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, 1 / Fraction(fps).limit_denominator(100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write(folder: Path, episodes: int = 3, **rows: Any) -> Path:
    """Episodes of three cameras; picture k of each is a level brighter than the one before by 10."""
    part = {"observation.state": np.ones((ROWS, 2), np.float32), "action": np.full((ROWS, 1), 0.5, np.float32), **rows}
    write_lerobot(folder, [part] * episodes, video_path="videos/{video_key}/episode_{episode_index:06d}.mp4")
    info = json.loads((folder / "meta" / "info.json").read_text())
    for name, (height, width, share, low) in CAMERAS.items():
        info["features"][name] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
        }
        levels = [low + round(10 * i / share) for i in range(round(ROWS * share))]
        for i in range(episodes):
            film(folder / "videos" / name / f"episode_{i:06d}.mp4", height, width, 10 * share, levels)
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    return folder


def read(folder: Path, *names: str, **columns: Any) -> list[Episode]:
    source = open_source(EpisodesConfig(source="lerobot", path=str(folder), columns={"images": names, **columns}))
    return list(source.read(range(len(source.entries()))))


def test_cameras_of_other_sizes_and_rates_lie_side_by_side(tmp_path: Path) -> None:
    episode = read(write(tmp_path / "d"), TOP, WRIST, SIDE)[1]
    assert episode.frames.shape == (ROWS, 64, 64, 9), "64 pixels where several cameras have no size set"
    parts = split_cameras(episode)
    assert list(parts) == [TOP, WRIST, SIDE]
    for name, frames in parts.items():
        _, _, share, low = CAMERAS[name]
        held = [low + 10 * (i if share == 1 else 2 * (i // 2)) for i in range(ROWS)]
        seen = frames.mean((1, 2, 3))
        assert seen == pytest.approx(held, abs=4), "a camera at half the rate keeps each frame for two rows"


def test_frames_are_decoded_where_steps_of_control_begin_and_nowhere_else(tmp_path: Path, monkeypatch: Any) -> None:
    folder = write(tmp_path / "d", 5)
    fine = read(folder, TOP, WRIST, SIDE)
    converted = []

    class Counting:
        def __init__(self) -> None:
            self._inner = av.video.reformatter.VideoReformatter()

        def reformat(self, *args: Any, **options: Any) -> Any:
            converted.append(args[0].time)
            return self._inner.reformat(*args, **options)

    monkeypatch.setattr(video, "VideoReformatter", Counting)
    columns = {"images": (TOP, WRIST, SIDE)}
    asked = EpisodesConfig(source="lerobot", path=str(folder), columns=columns, control_hz=10 / 3)
    opened = open_recordings(asked, 0)
    assert not converted, "rows are counted, and actions compared, without frames"
    for one, other in zip(opened.source.read(range(5)), fine, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames[[0, 3, 6]])
    assert len(converted) == 5 * (3 + 3 + 4), "of the slow camera all that some later row may show"


def test_stills_are_decoded_where_steps_begin_and_nowhere_else(monkeypatch: Any) -> None:
    asked = EpisodesConfig(source="lerobot", path="x", columns={"images": "eye"})
    blobs = np.empty(7, object)
    blobs[:] = [f"{i}".encode() for i in range(7)]
    columns = {"observation.state": np.ones((7, 2)), "action": np.ones((6, 1)), "eye": blobs}
    layout = Layout(("observation.state",), ("action",), "")
    seen: list[bytes] = []

    def decode(chosen: list[bytes], size: int, most: int, place: Any) -> Any:
        seen.extend(chosen)
        return np.zeros((len(chosen), 4, 4, 3), np.uint8)

    monkeypatch.setattr(episode_builder, "decode_images", decode)
    recorded = read_columns("a", columns, layout, asked, "x")
    assert not seen
    made = Control(10, 30, 3, "chunk").steps_of(recorded)
    assert (seen, made.frames.shape) == ([b"0", b"3", b"6"], (3, 4, 4, 3))


def test_one_camera_keeps_its_size(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", 1)
    assert read(folder, TOP)[0].frames.shape == (ROWS, 48, 64, 3)
    assert read(folder, TOP, WRIST, image_size=20)[0].frames.shape == (ROWS, 20, 20, 6)


def test_every_camera_comes_back_from_an_export(tmp_path: Path) -> None:
    episodes = read(write(tmp_path / "d", 2), TOP, WRIST)
    export_lerobot(Store.at(str(tmp_path / "out")), (Exported(episode) for episode in episodes), fps=10)
    again = read(tmp_path / "out", TOP, WRIST)
    for old, new in zip(episodes, again, strict=True):
        assert np.abs(old.frames[: len(new.frames)].astype(int) - new.frames).mean() < 3
    stats = json.loads((tmp_path / "out" / "meta" / "stats.json").read_text())
    assert stats[WRIST]["mean"][0][0][0] > stats[TOP]["mean"][0][0][0] + 0.2


def test_grey_and_alpha_become_colour_beside_others() -> None:
    grey, alpha = np.full((2, 4, 4, 1), 7, np.uint8), np.full((2, 4, 4, 4), 9, np.uint8)
    joined = join_cameras([grey, alpha])
    assert joined.shape == (2, 4, 4, 6)
    assert (joined[..., :3] == 7).all()
    assert (joined[..., 3:] == 9).all()
    assert join_cameras([grey]) is grey
    assert camera_names({}, 6) == ["camera_0", "camera_1"]


def absent(folder: Path) -> None:
    (folder / "videos" / WRIST / "episode_000001.mp4").unlink()


def short(folder: Path) -> None:
    film(folder / "videos" / WRIST / "episode_000001.mp4", 32, 32, 10, [90] * 5)


def fast(folder: Path) -> None:
    film(folder / "videos" / WRIST / "episode_000001.mp4", 32, 32, 7, [90] * 8)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (absent, r"episode 1: no such file: .*images\.wrist/episode_000001\.mp4"),
        (short, r"episode 1: .*images\.wrist/episode_000001\.mp4 has no frame at 0\.500 s"),
        (fast, r"episode 1: .*images\.wrist/episode_000001\.mp4 (has no frame at \d|goes on after its 8 rows)"),
    ],
)
def test_a_camera_that_is_wrong_is_named_with_episode_and_time(tmp_path: Path, spoil: Any, line: str) -> None:
    folder = write(tmp_path / "d", 2)
    spoil(folder)
    with pytest.raises(DataError, match=line):
        read(folder, TOP, WRIST)


def test_a_camera_without_a_span_of_an_episode_is_named(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "fixtures" / "lerobot-v3", tmp_path / "d")
    source = open_source(EpisodesConfig(source="lerobot", path=str(tmp_path / "d"), columns={"images": [TOP]}))
    source._episodes[1][f"videos/{TOP}/from_timestamp"] = None
    with pytest.raises(DataError, match=r"episode 1: camera 'observation\.images\.top' has no video of it"):
        list(source.read([0, 1]))


def test_times_that_go_back_are_said(tmp_path: Path) -> None:
    times = np.arange(ROWS, dtype=np.float32) / 10
    times[5] = times[4] - 0.05
    folder = write(tmp_path / "d", 1, timestamp=times)
    with pytest.raises(DataError, match=r"episode 0: has times that do not increase: row 5 is at 0\.35 s"):
        read(folder, TOP)


def test_cameras_of_other_counts_are_said(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"], demo["rewards"], demo["dones"] = np.ones((4, 1), np.float32), np.ones(4), np.zeros(4)
        demo["obs/pose"] = np.ones((5, 2))
        for name, rows in (("front", 5), ("wrist", 3)):
            demo[f"obs/{name}"] = np.zeros((rows, 8, 8, 3), np.uint8)
    wanted = {"images": ["obs/front", "obs/wrist"]}
    source = open_source(EpisodesConfig(source="hdf5", path=str(tmp_path / "d.hdf5"), columns=wanted))
    with pytest.raises(DataError, match=r"cameras differ in their number of frames: obs/front 5, obs/wrist 3"):
        list(source.read([0]))


def test_npz_reads_several_arrays(tmp_path: Path) -> None:
    left, right = (np.full((2, 4, 10, 10, 3), level, np.uint8) for level in (10, 200))
    np.savez(tmp_path / "d.npz", left=left, right=right, actions=np.ones((2, 3, 1)), rewards=np.ones((2, 3)))
    wanted = {"images": ["left", "right"], "image_size": 6}
    (episode, _) = open_source(EpisodesConfig(source="npz", path=str(tmp_path / "d.npz"), columns=wanted)).read([0, 1])
    assert {name: int(frames.mean()) for name, frames in split_cameras(episode).items()} == {"left": 10, "right": 200}


def test_a_shard_has_a_bounded_size() -> None:
    four = EpisodesConfig(columns=ColumnsConfig(images=("a", "b", "c", "d")))
    rows = episodes_of_shard(four, [400] * 50)
    assert 1 <= rows < 64
    assert rows * 401 * 64 * 64 * 12 <= SHARD_BYTES
    assert episodes_of_shard(four, [8] * 50) == episodes_of_shard(four, None) == 64
    assert episodes_of_shard(EpisodesConfig(), [400] * 50) == 64


def test_five_cameras_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 4"):
        ColumnsConfig(images=("a", "b", "c", "d", "e"))


@pytest.mark.parametrize(
    ("name", "short"),
    [("observation.images.top", "top"), ("/wrist/compressed", "wrist_compressed"), ("frames_1", "frames_1")],
)
def test_a_camera_s_short_name_is_one_word_and_topics_stay_apart(name, short):
    assert short_camera(name) == short
