"""LeRobot import, frames a second, against LeRobot's own loader on the same data: state and one 96 x 96 camera.

LeRobot pins other versions, so its half runs in an environment of its own (lerobot-dataset 0.4.4; see
tests/fixtures/write_lerobot.py):

    LEROBOT_ENV/bin/python benchmarks/imports_lerobot.py write DIR     # 60 episodes of 200 frames, AV1 video
    LEROBOT_ENV/bin/python benchmarks/imports_lerobot.py theirs DIR    # its DataLoader, 2 workers; then 1 process
    python benchmarks/imports_lerobot.py ours DIR                      # import into shards, 2 actors; then 1 process

Each prints one JSON line.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

EPISODES, STEPS, SIDE, FPS = 60, 200, 96, 20


def write(folder: Path) -> None:
    import numpy as np
    from ledataset.datasets.lerobot_dataset import LeRobotDataset

    camera = {"dtype": "video", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.state": {"dtype": "float32", "shape": (6,), "names": None},
        "observation.images.top": camera,
        "action": {"dtype": "float32", "shape": (6,), "names": None},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    }
    data = LeRobotDataset.create("phaseb/bench", fps=FPS, features=features, root=folder, use_videos=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    for _ in range(EPISODES):
        phase = rng.uniform(0, 6)
        for t in range(STEPS):
            waves = 127 + 120 * np.sin(phase + t / 9 + x / 11) * np.cos(y / 13)
            frame = {
                "observation.state": rng.standard_normal(6).astype(np.float32),
                "observation.images.top": np.stack([waves, 255 - waves, x * 2.0], -1).astype(np.uint8),
                "action": rng.standard_normal(6).astype(np.float32),
                "next.reward": rng.standard_normal(1).astype(np.float32),
            }
            data.add_frame({**frame, "task": "none"})
        data.save_episode()
    data.finalize()


def theirs(folder: Path) -> dict[str, float]:
    import torch
    from ledataset.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset("phaseb/bench", root=folder)

    def read(workers: int) -> int:
        loader = torch.utils.data.DataLoader(data, batch_size=64, num_workers=workers)
        return sum(len(batch["action"]) for batch in loader)

    return {"two_workers": rate(lambda: read(2)), "one_process": rate(lambda: read(0))}


def ours(folder: Path) -> dict[str, float]:
    from phaseb.config.data import EpisodesConfig
    from phaseb.config.run import ResourcesConfig
    from phaseb.episodes.importer import import_episodes
    from phaseb.runtime.ray_session import ray_session
    from phaseb.runtime.storage import Store

    columns = {"images": "observation.images.top", "reward": "next.reward"}
    config = EpisodesConfig(source="lerobot", path=str(folder), columns=columns, rows_per_shard=2)
    resources = ResourcesConfig(num_cpus=2, num_tasks=2, object_store_gb=0.1)

    def read(where: ResourcesConfig | None) -> int:
        with tempfile.TemporaryDirectory() as target:
            import_episodes(config, Store.at(target), 0, where)
        return EPISODES * STEPS

    alone = rate(lambda: read(None))
    with ray_session(resources, wanted={}):
        return {"two_actors": rate(lambda: read(resources)), "one_process": alone}


def rate(read: Callable[[], int], repeats: int = 3) -> float:
    """The median of frames a second by the clock, after one run that is not counted."""
    read()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        frames = read()
        found.append(frames / (time.perf_counter() - started))
    return sorted(found)[repeats // 2]


if __name__ == "__main__":
    what, place = sys.argv[1], Path(sys.argv[2])
    if what == "write":
        write(place)
    else:
        print(json.dumps({"theirs": theirs, "ours": ours}[what](place)))
