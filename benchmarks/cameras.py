"""Memory and speed of an import with several cameras: LeRobot v2.1, H.264 video, two actors.

    python benchmarks/cameras.py [EPISODES STEPS CAMERAS WIDTH HEIGHT]     # 50 400 4 640 480

It writes the data set to a temporary folder, imports it with `resources.num_tasks=2` and the default size of frames,
and prints one JSON line: frames decoded a second, and the peak of the proportional set size (PSS) of this process and
all of its children, Ray's own processes among them, sampled ten times a second.
"""

import contextlib
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import av
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from phaseb.config.data import ColumnsConfig, EpisodesConfig
from phaseb.config.run import ResourcesConfig
from phaseb.episodes.importer import import_episodes
from phaseb.runtime.ray_session import ray_session
from phaseb.runtime.storage import Store

FPS = 50
SAMPLE_S = 0.1
SIZES = (50, 400, 4, 640, 480)


def film(path: Path, steps: int, width: int, height: int, phase: float) -> bytes:
    """A moving pattern with a camera's noise."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 8, (8, height, width, 1), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for t in range(steps):
            waves = (100 + 90 * np.sin(phase + t / 9 + x / 40) * np.cos(y / 50)).astype(np.uint8)
            picture = np.stack([waves, 200 - waves, waves // 2], -1) + noise[t % len(noise)]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def write(folder: Path, episodes: int, steps: int, cameras: int, width: int, height: int) -> list[str]:
    """A data set whose episodes share their films; returns the cameras' names."""
    names = [f"observation.images.camera_{i}" for i in range(cameras)]
    rng, features = np.random.default_rng(0), {}
    for part in ("meta", "data/chunk-000"):
        (folder / part).mkdir(parents=True)
    films = {name: film(folder / "film.mp4", steps, width, height, i) for i, name in enumerate(names)}
    lines = []
    for i in range(episodes):
        columns: dict[str, np.ndarray] = {
            "observation.state": rng.standard_normal((steps, 14)).astype(np.float32),
            "action": rng.standard_normal((steps, 14)).astype(np.float32),
            "timestamp": (np.arange(steps) / FPS).astype(np.float32),
            "frame_index": np.arange(steps),
            "episode_index": np.full(steps, i),
        }
        table = pa.table({n: pa.array(c.tolist()) if c.ndim == 2 else pa.array(c) for n, c in columns.items()})
        pq.write_table(table, folder / "data" / "chunk-000" / f"episode_{i:06d}.parquet")
        features = {
            n: {"dtype": str(c.dtype), "shape": list(c.shape[1:]) or [1], "names": None} for n, c in columns.items()
        }
        lines.append(json.dumps({"episode_index": i, "tasks": ["move"], "length": steps}))
        for name in names:
            (folder / "videos" / name).mkdir(parents=True, exist_ok=True)
            (folder / "videos" / name / f"episode_{i:06d}.mp4").write_bytes(films[name])
    side = {"shape": [height, width, 3], "names": ["height", "width", "channels"]}
    info = {
        "codebase_version": "v2.1",
        "fps": FPS,
        "features": features | {name: {"dtype": "video", **side} for name in names},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    (folder / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    return names


class PeakMemory(threading.Thread):
    """Samples the PSS of this process and its children until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._over = 0, threading.Event()

    def run(self) -> None:
        root = psutil.Process()
        while not self._over.wait(SAMPLE_S):
            self.peak = max(self.peak, proportional_bytes(root))

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self.peak


def proportional_bytes(root: psutil.Process) -> int:
    """The PSS of a process and all that descend from it."""
    total = 0
    for one in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += one.memory_full_info().pss
    return total


def main(episodes: int, steps: int, cameras: int, width: int, height: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = write(Path(folder) / "data", episodes, steps, cameras, width, height)
        config = EpisodesConfig(
            source="lerobot", path=f"{folder}/data", columns=ColumnsConfig(images=tuple(names)), max_bytes=2**32
        )
        resources = ResourcesConfig(num_tasks=2, num_cpus=2, object_store_gb=0.1)
        memory = PeakMemory()
        memory.start()
        with ray_session(resources):
            begin = time.monotonic()
            shards = import_episodes(config, Store.at(f"{folder}/shards"), 0, resources)
            seconds = time.monotonic() - begin
        told = {"episodes": episodes, "steps": steps, "cameras": cameras, "width": width, "height": height}
        rate = round(episodes * steps * cameras / seconds)
        print(
            json.dumps(told | {"shards": len(shards), "frames_per_s": rate, "peak_gb": round(memory.stop() / 1e9, 2)})
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:])) if len(sys.argv) > 1 else main(*SIZES)
