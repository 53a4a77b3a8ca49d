"""What is wrong with recorded data is one line: what, where, and what to do; never a library's exception alone."""

import json
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from episode_strategies import make_episode
from gymnasium import spaces
from lerobot_writer import write_lerobot
from minari_writer import write_minari

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.shards import write_episodes
from phaseb.episodes.sources import open_source
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

FIXTURES = Path(__file__).parents[3] / "fixtures"
Arrays = dict[str, Any]
Spoil = Callable[[Arrays], Any]
CURES = (
    "set",
    "unset",
    "write",
    "copy",
    "choose",
    "save",
    "record",
    "raise",
    "mend",
    "list",
    "leave",
    "convert",
    "use",
    "drop",
    "clean",
    "read",
    "fill",
    "map",
    "cut",
    "take",
    "import",
    "run",
    "hold",
)


def setting(source: str, path: Path, **columns: Any) -> EpisodesConfig:
    return EpisodesConfig(source=source, path=str(path), columns=columns, max_bytes=10**6)


def npz(spoil: Spoil, **columns: Any) -> Callable[[Path], EpisodesConfig]:
    def make(folder: Path) -> EpisodesConfig:
        content: Arrays = {"observations": np.ones((4, 7, 3)), "actions": np.full((4, 6, 2), 0.5)}
        content["rewards"] = np.ones((4, 6))
        spoil(content)
        np.savez(folder / "d.npz", **content)
        return setting("npz", folder / "d.npz", **columns)

    return make


def flat(spoil: Spoil, **columns: Any) -> Callable[[Path], EpisodesConfig]:
    def make(folder: Path) -> EpisodesConfig:
        content: Arrays = {"observations": np.ones((12, 3)), "actions": np.full((12, 2), 0.5), "rewards": np.ones(12)}
        content["timeouts"] = np.arange(12) % 4 == 3
        spoil(content)
        return hdf5(folder, content, **columns)

    return make


def demos(spoil: Spoil, **columns: Any) -> Callable[[Path], EpisodesConfig]:
    def make(folder: Path) -> EpisodesConfig:
        content: Arrays = {}
        for i in range(2):
            content |= {f"data/demo_{i}/obs/pose": np.ones((4, 3)), f"data/demo_{i}/actions": np.full((4, 2), 0.5)}
            content |= {f"data/demo_{i}/rewards": np.ones(4), f"data/demo_{i}/dones": np.arange(4) == 3}
        spoil(content)
        return hdf5(folder, content, **columns)

    return make


def hdf5(folder: Path, content: Arrays, **columns: Any) -> EpisodesConfig:
    with h5py.File(folder / "d.hdf5", "w") as file:
        for name, values in content.items():
            file[name] = values
    return setting("hdf5", folder / "d.hdf5", **columns)


def lerobot(spoil: Spoil, info: Arrays | None = None, **columns: Any) -> Callable[[Path], EpisodesConfig]:
    def make(folder: Path) -> EpisodesConfig:
        content: Arrays = {"observation.state": np.ones((4, 2), np.float32), "next.reward": np.ones(4, np.float32)}
        content["action"] = np.full((4, 1), 0.5, np.float32)
        spoil(content)
        return setting("lerobot", write_lerobot(folder / "d", [content] * 3, **(info or {})), **columns)

    return make


def minari(space: spaces.Space[Any], meta: Arrays | None = None, rows: Any = None, **columns: Any) -> Any:
    def make(folder: Path) -> EpisodesConfig:
        seen = rows if rows is not None else [space.sample() for _ in range(3)]
        write_minari(folder / "d", "parquet", space, seen, (meta or {}).pop("action", None))
        file = folder / "d" / "data" / "metadata.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | (meta or {})))
        return setting("minari", folder / "d", **columns)

    return make


def own(change: Callable[[Path], Any], path: str = "d") -> Callable[[Path], EpisodesConfig]:
    def make(folder: Path) -> EpisodesConfig:
        write_episodes(Store.at(folder / "d"), [make_episode(f"e{i}", 3) for i in range(4)], 2)
        change(folder)
        return setting("parquet", folder / path)

    return make


def file_of(source: str, content: bytes | None, name: str) -> Callable[[Path], EpisodesConfig]:
    def make(folder: Path) -> EpisodesConfig:
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return setting(source, folder / name.split("/")[0] if source in ("minari", "lerobot") else folder / name)

    return make


def film(fps: int, size: tuple[int, int] = (48, 32), start: int = 0, **feature: Any) -> Callable[..., Any]:
    """The LeRobot fixture with one camera's video of episode 0 made anew."""

    def make(folder: Path) -> EpisodesConfig:
        shutil.copytree(FIXTURES / "lerobot-v21", folder / "d")
        video = next(iter(sorted((folder / "d" / "videos").rglob("episode_000000.mp4"))))
        with av.open(str(video), "w") as container:
            stream = container.add_stream("mpeg4", rate=fps)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for i in range(12):
                frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 9 * i, np.uint8), format="rgb24")
                frame.pts, frame.time_base = i + start, Fraction(1, fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        info = folder / "d" / "meta" / "info.json"
        whole = json.loads(info.read_text())
        whole["features"]["observation.images.top"] |= feature
        info.write_text(json.dumps(whole))
        config = setting("lerobot", folder / "d", images="observation.images.top")
        return config.model_copy(update={"max_bytes": 10**8})

    return make


def put(name: str, value: Any) -> Spoil:
    return lambda content: content.__setitem__(name, value)


def drop(name: str) -> Spoil:
    return lambda content: content.pop(name)


def png16(folder: Path) -> EpisodesConfig:
    """A depth camera's pictures within the rows."""
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 8, 8, "gray16be", Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(np.full((8, 8), 4000, np.uint16), format="gray16le").reformat(format="gray16be")
    blob = b"".join(bytes(packet) for packet in codec.encode(frame) + codec.encode())
    content = {
        "data/demo_0/obs/pose": np.ones((2, 3)),
        "data/demo_0/actions": np.full((2, 2), 0.5),
        "data/demo_0/rewards": np.ones(2),
        "data/demo_0/dones": np.ones(2),
    }
    config = hdf5(folder, content, images="obs/depth")
    with h5py.File(folder / "d.hdf5", "a") as file:
        cells = file.create_dataset("data/demo_0/obs/depth", (2,), h5py.vlen_dtype(np.uint8))
        for i in range(2):
            cells[i] = np.frombuffer(blob, np.uint8)
    return config


def stills(*cells: dict[str, Any] | None) -> Callable[[Path], EpisodesConfig]:
    """A LeRobot data set whose camera keeps its pictures within the rows."""

    def make(folder: Path) -> EpisodesConfig:
        config = lerobot(put("x", np.ones(4)), images="observation.images.top")(folder)
        for file in (folder / "d" / "data").rglob("*.parquet"):
            kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
            table = pq.read_table(file)
            pq.write_table(table.append_column("observation.images.top", pa.array(cells, kind)), file)
        return config

    return make


def unfilmed(value: float | None, drop_column: bool = False) -> Callable[[Path], EpisodesConfig]:
    """LeRobot's fixture of layout v3.0, of which a camera has no video of the third episode, or says no times."""

    def make(folder: Path) -> EpisodesConfig:
        shutil.copytree(FIXTURES / "lerobot-v3", folder / "d")
        (file,) = (folder / "d" / "meta" / "episodes").rglob("*.parquet")
        table, name = pq.read_table(file), "videos/observation.images.top/from_timestamp"
        at = table.column_names.index(name)
        times = [value if i == 2 else time for i, time in enumerate(table[name].to_pylist())]
        table = table.remove_column(at) if drop_column else table.set_column(at, name, pa.array(times, pa.float64()))
        pq.write_table(table, file)
        config = setting("lerobot", folder / "d", images="observation.images.top")
        return config.model_copy(update={"max_bytes": 10**8})

    return make


def unrowed(folder: Path) -> EpisodesConfig:
    """A LeRobot data set without the rows of its second episode."""
    config = lerobot(put("x", np.ones(4)))(folder)
    (folder / "d" / "data" / "chunk-000" / "episode_000001.parquet").unlink()
    return config


BLOB = {"bytes": b"no picture", "path": None}
BOX = spaces.Box(0, 1, (2,), np.float32)
PIXELS = spaces.Box(0, 255, (8, 8, 3), np.uint8)
CLIP = np.ones((4, 8, 8, 3), np.uint8)
LONG = np.ones((4, 7, 200_000), np.float32)
VOLUME = np.ones((12, 4, 4, 4), np.float32)
CASES: dict[str, tuple[Callable[[Path], EpisodesConfig], str]] = {
    # NPZ
    "npz: absent": (file_of("npz", None, "d.npz"), "no such file"),
    "npz: text": (file_of("npz", b"episode,reward\n1,2\n", "d.npz"), "damaged or no NPZ file"),
    "npz: empty": (file_of("npz", b"", "d.npz"), "damaged or no NPZ file"),
    "npz: no observations": (npz(drop("observations")), "lacks the array 'observations'"),
    "npz: no actions": (npz(drop("actions")), "lacks the array 'actions'"),
    "npz: success": (npz(put("success", np.full(4, 0.5))), "success flags 'success' are of type float64 and hold more"),
    "npz: success shape": (npz(put("success", np.ones((4, 3)))), r"'success' has shape \(4, 3\), wanted \(4, 6\)"),
    "npz: other name": (npz(put("x", 1), reward="gain"), "lacks the array 'gain' that episodes.columns names"),
    "npz: NaN": (npz(put("observations", np.full((4, 7, 3), np.nan))), "state has NaN or Inf"),
    "npz: no episodes": (npz(put("rewards", np.ones((0, 6)))), "holds no episodes"),
    "npz: shape": (npz(put("observations", np.ones((4, 6, 3)))), r"'observations' has shape \(4, 6, 3\)"),
    "npz: rewards of one": (npz(put("rewards", np.ones(6))), "'rewards' has shape"),
    "npz: lengths": (npz(put("lengths", np.array([1, 2, 3, 9]))), "'lengths' must hold whole numbers"),
    "npz: terminals": (npz(put("terminals", np.full((4, 6), 0.5))), "'terminals' has shape"),
    "npz: discrete": (npz(put("actions", np.ones((4, 6, 2), int))), "'actions' is of type int64, so they are discrete"),
    "npz: pickle": (npz(put("actions", np.array([[None] * 6] * 4))), "holds Python objects"),
    "npz: text in it": (npz(put("actions", np.full((4, 6, 2), "x"))), "'actions' is of type <U1"),
    "npz: too large": (npz(put("observations", LONG)), "unpacks to"),
    "npz: odd channels": (npz(put("frames", np.ones((4, 7, 8, 8, 9), np.uint8))), "no 1, 3 or 4 channels"),
    "npz: float frames": (npz(put("frames", np.ones((4, 7, 8, 8, 3)))), "'frames' is float64"),
    "npz: tasks of floats": (npz(put("tasks", np.array([0, 1, np.nan, 1]))), "'tasks' is of type float64, wanted text"),
    "npz: half a character": (npz(put("tasks", np.array(["a\ud800"] * 4))), "'tasks' holds halves of characters"),
    "npz: tasks of bytes": (
        npz(put("tasks", np.array([b"x"] * 4))),
        r"'tasks' is of type \|S1, wanted numbers or text",
    ),
    "npz: tasks of None": (
        npz(put("tasks", np.array(["x", None, "y", "y"], object))),
        r"np\.array\(texts, dtype=str\)",
    ),
    # D4RL
    "d4rl: absent": (file_of("hdf5", None, "d.hdf5"), "no such file"),
    "d4rl: text": (file_of("hdf5", b"hello", "d.hdf5"), "damaged or of another layout"),
    "d4rl: nothing known": (lambda folder: hdf5(folder, {"x": 1}), "neither of D4RL's layout nor of robomimic's"),
    "d4rl: no ends": (flat(drop("timeouts")), "marks no end in its 12 rows: neither 'terminals' nor 'timeouts'"),
    "d4rl: ends never set": (flat(put("timeouts", np.zeros(12, bool))), "marks no end in its 12 rows"),
    "d4rl: lengths": (flat(put("rewards", np.ones(11))), "columns differ in length: observations 12, .*rewards 11"),
    "d4rl: flags": (flat(put("timeouts", np.ones(5, bool))), "columns differ in length: .*timeouts 5"),
    "d4rl: wide flags": (flat(put("timeouts", np.ones((12, 2)))), "'timeouts' is .* flags of 0 and 1"),
    "d4rl: no flags": (flat(put("timeouts", np.full(12, np.nan))), "'timeouts' holds other values than 0 and 1"),
    "d4rl: no rewards": (flat(drop("rewards"), reward="gain"), "has no column 'gain'"),
    "d4rl: success": (flat(put("success", np.full(12, 2))), "success flags 'success' are of type int64 and hold more"),
    "d4rl: discrete": (flat(put("actions", np.ones((12, 1), int))), "of type int64, so they are discrete"),
    "d4rl: volume": (flat(put("observations", VOLUME)), "'observations' has 3 dimensions a row"),
    "d4rl: pictures": (flat(put("observations", VOLUME.astype(np.uint8))), "read it with episodes.columns.images"),
    "d4rl: all lone": (flat(put("timeouts", np.ones(12, bool))), "no episodes of two rows or more"),
    "d4rl: strings": (flat(put("observations", np.array([b"x"] * 12))), "'observations' is of type"),
    "d4rl: stack": (flat(put("film", np.ones((12, 8, 8, 9), np.uint8)), images="film"), "no 1, 3 or 4 channels"),
    "d4rl: NaN": (flat(put("actions", np.full((12, 2), np.nan))), "actions has NaN or Inf"),
    "d4rl: wide rewards": (flat(put("rewards", np.ones((12, 2)))), "rewards 'rewards' have shape|differ in length"),
    # robomimic
    "demos: none": (lambda folder: hdf5(folder, {"data/x": np.ones(3)}), "no episodes of two rows or more"),
    "demos: no group": (lambda folder: hdf5(folder, {"data/demo_0": np.ones(3)}), "data/demo_0 is no group"),
    "demos: lengths": (demos(put("data/demo_1/rewards", np.ones(3))), "differ in length: actions 4, rewards 3"),
    "demos: rows lost": (demos(put("data/demo_1/obs/pose", np.ones((2, 3)))), "differ in length: .*observations 2"),
    "demos: next": (
        demos(lambda c: [c.__setitem__(f"data/demo_{i}/next_obs/pose", np.ones((3, 3))) for i in (0, 1)]),
        "differ in length: obs/pose 4, next_obs/pose 3",
    ),
    "demos: discrete": (demos(put("data/demo_0/actions", np.ones((4, 1), int))), "so they are discrete"),
    "demos: nothing seen": (demos(lambda c: [c.pop(f"data/demo_{i}/obs/pose") for i in (0, 1)]), "no vectors to"),
    "demos: no rewards": (demos(drop("data/demo_0/rewards"), reward="rewards"), "has no column 'rewards'"),
    "demos: success": (demos(put("data/demo_0/success", np.ones(2))), r"'success' have shape \(2,\), wanted one for"),
    "demos: camera": (demos(put("x", 1), images="obs/front"), "demo_0: has no column 'obs/front'"),
    "demos: a camera lost": (
        demos(put("data/demo_0/obs/eye", CLIP), images="obs/eye"),
        "demo_1: has no column 'obs/eye'",
    ),
    "demos: depth": (png16, "pictures of one channel of 16 bits"),
    # LeRobot
    "lerobot: absent": (file_of("lerobot", None, "d"), "no such file: .*which every LeRobot data set has"),
    "lerobot: JSON": (file_of("lerobot", b"{", "d/meta/info.json"), "is not JSON"),
    "lerobot: version": (lerobot(put("x", np.ones(4)), {"codebase_version": "v9"}), "is of version v9"),
    "lerobot: fps": (lerobot(put("x", np.ones(4)), {"fps": 0}), "impossible frame rate"),
    "lerobot: no path": (lerobot(put("x", np.ones(4)), {"data_path": None}), "impossible frame rate or path"),
    "lerobot: features": (lerobot(put("x", np.ones(4)), {"features": None}), "damaged or of another layout"),
    "lerobot: discrete": (lerobot(put("action", np.ones((4, 1), np.int64))), "'action' are of type int64, so they are"),
    "lerobot: matrix": (lerobot(put("action", np.ones((4, 2, 2), np.float32))), "'action' have shape .* wanted one"),
    "lerobot: no action": (lerobot(drop("action")), "has no column 'action'"),
    "lerobot: no reward": (lerobot(drop("next.reward"), reward="next.reward"), "has no column 'next.reward'"),
    "lerobot: success": (lerobot(drop("next.reward"), success="done"), "has no column 'done'"),
    "lerobot: volume": (lerobot(put("observation.state", np.ones((4, 2, 2, 2), np.float32))), "3 dimensions a row"),
    "lerobot: ends": (
        lerobot(put("x", np.full(4, 0.5)), terminal="x"),
        "'x' holds other values than 0 and 1, so no flags",
    ),
    "lerobot: times": (lerobot(put("timestamp", np.arange(4) / 30)), "has row 1 at .* s, where fps=10"),
    "lerobot: a gap": (lerobot(put("timestamp", np.array([0, 0.1, 0.3, 0.4]))), "has row 2 at 0.3 s, where fps=10"),
    "lerobot: no time": (lerobot(put("timestamp", np.array([0, 0.1, np.nan, 0.3]))), "has no time in row 2, but nan"),
    "lerobot: rows lost": (unrowed, "episode 1: lacks its rows, data/chunk-000/episode_000001.parquet: copy"),
    "lerobot: order": (lerobot(put("frame_index", np.array([0, 2, 1, 3]))), "has frame_index 2 in row 1"),
    "lerobot: one row": (
        lambda folder: setting(
            "lerobot",
            write_lerobot(
                folder / "d",
                [{"observation.state": np.ones((1, 2)), "action": np.ones((1, 1)), "next.reward": np.ones(1)}],
            ),
        ),
        "no episodes of two rows or more",
    ),
    "lerobot: camera": (
        lerobot(put("x", np.ones(4)), images="observation.images.top"),
        "no column 'observation.images",
    ),
    "lerobot: depth": (film(10, info={"video.is_depth_map": True}), "records depth"),
    "lerobot: video size": (film(10, (64, 32)), "has pictures of 32x64"),
    "lerobot: slow video": (film(5), "goes on after its 6 rows"),
    "lerobot: more frames": (film(10), "goes on after its 6 rows"),
    "lerobot: a picture lost": (
        stills(BLOB, BLOB, None, BLOB),
        r"episode 0: .*images.top' has no picture in row 2, at 0.2",
    ),
    "lerobot: broken picture": (
        stills(*[BLOB] * 4),
        r"episode 0: camera .*images.top', row 0 at 0.000 s: the image cannot",
    ),
    "lerobot: picture files": (stills(*[{"bytes": None, "path": "a.png"}] * 4), "keeps pictures in files of their own"),
    "lerobot: unfilmed": (unfilmed(None), "episode 2: camera 'observation.images.top' has no video of it"),
    "lerobot: unfilmed, NaN": (unfilmed(float("nan")), "episode 2: camera .* has no video of it, from 0.000 s on"),
    "lerobot: no video times": (unfilmed(None, True), "episode 0: camera 'observation.images.top' has no video of it"),
    "lerobot: late video": (film(20, start=1), "has no frame at 0.000 s"),
    # Minari
    "minari: absent": (file_of("minari", None, "d"), "no such file: .*which every Minari data set has"),
    "minari: JSON": (file_of("minari", b"[", "d/data/metadata.json"), "is not JSON"),
    "minari: other": (file_of("minari", b"[]", "d/data/metadata.json"), "is not of Minari"),
    "minari: format": (minari(BOX, {"data_format": "zarr"}), "format 'zarr', which is not read"),
    "minari: none": (minari(BOX, {"total_episodes": 0}), "counts no episodes"),
    "minari: lost": (minari(BOX, {"total_episodes": 2}), "lacks its .parquet file"),
    "minari: no space": (minari(BOX, {"observation_space": None}), "names no observation_space"),
    "minari: odd space": (minari(BOX, {"observation_space": '{"type": "Box"}'}), "by no space of Gymnasium"),
    "minari: discrete": (minari(BOX, {"action": spaces.Discrete(3)}), "so they are discrete"),
    "minari: other shape": (
        minari(BOX, {"observation_space": '{"type":"Box","dtype":"float32","shape":[3]}'}),
        "has 2 numbers a row, metadata.json says shape",
    ),
    "minari: value": (minari(spaces.Discrete(2), None, [np.int64(5)] * 3), "values that are not of its space"),
    "minari: volume": (minari(spaces.Dict(OrderedDict(v=spaces.Box(0, 1, (2, 2, 2))))), "no vector, matrix or picture"),
    "minari: pictures": (minari(PIXELS), "no vectors to observe"),
    "minari: camera": (minari(BOX, images="observations"), "camera 'observations' is float32"),
    # phaseb's own
    "own: nothing": (own(lambda folder: shutil.rmtree(folder / "d")), "no shards in"),
    "own: one lost": (own(lambda folder: next(iter(sorted((folder / "d").iterdir()))).unlink()), "is not whole"),
    "own: damaged": (own(lambda folder: next(iter((folder / "d").iterdir())).write_bytes(b"PAR1")), "damaged"),
    "own: list": (own(lambda folder: (folder / "l.json").write_text("{}"), "l.json"), "must hold a JSON list"),
}


def read_all(config: EpisodesConfig) -> None:
    source = open_source(config)
    list(source.read(range(len(source.entries()))))


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_one_line_with_its_place_and_cure(tmp_path: Path, name: str) -> None:
    make, pattern = CASES[name]
    config = make(tmp_path)
    with pytest.raises(DataError, match=pattern) as caught:
        read_all(config)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    assert str(tmp_path) in line, "where"
    said = re.split("[:;]", line)[-1]
    assert "wanted" in line or re.search(rf"(^|\b(?:or|and|must) |, )\s*({'|'.join(CURES)})\b", said), "what to do"
    assert not re.search(r"Traceback|Errno|Error\b|object has no|<class|\bself\.", line), "no library's words alone"


def test_there_are_enough_lines() -> None:
    assert len(CASES) >= 50
