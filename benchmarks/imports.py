"""Import speed and memory: Minari data sets against Minari's own iterator, and peak memory against the data's size.

    python benchmarks/imports.py [--episodes 400] [--steps 500] [--repeats 5]

Rates are transitions a second of processor time in one process, which other work on the machine stretches less than the
clock; ours reads, checks and makes `Episode`s, and in a second row writes Parquet shards too. Memory is the peak of a
fresh process that imports N and 10 N episodes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.importer import import_episodes
from phaseb.episodes.sources import open_source
from phaseb.runtime.storage import Store

STATE, ACTIONS = 17, 6
FORMATS = ("hdf5", "arrow", "parquet")


def write(root: Path, name: str, data_format: str, num_episodes: int, steps: int) -> Path:
    """A data set as Minari itself writes it, states and actions of a locomotion task's size."""
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    import minari
    from minari.data_collector import EpisodeBuffer

    rng = np.random.default_rng(0)
    buffers = [
        EpisodeBuffer(
            id=i,
            seed=i,
            options=None,
            observations=rng.standard_normal((steps + 1, STATE)).astype(np.float32),
            actions=rng.uniform(-1, 1, (steps, ACTIONS)).astype(np.float32),
            rewards=list(rng.standard_normal(steps)),
            terminations=[False] * steps,
            truncations=[t == steps - 1 for t in range(steps)],
            infos={},
        )
        for i in range(num_episodes)
    ]
    minari.create_dataset_from_buffers(
        name,
        buffers,
        observation_space=gym.spaces.Box(-np.inf, np.inf, (STATE,)),
        action_space=gym.spaces.Box(-1, 1, (ACTIONS,)),
        data_format=data_format,
        algorithm_name="none",
        author="phaseb",
        author_email="none",
        code_permalink="none",
    )
    return root / name


def theirs(name: str) -> int:
    import minari

    return sum(len(episode.rewards) for episode in minari.load_dataset(name).iterate_episodes())


def ours(path: Path) -> int:
    source = open_source(EpisodesConfig(source="minari", path=str(path)))
    return sum(len(episode) for episode in source.read(range(len(source.entries()))))


def imported(path: Path) -> int:
    with tempfile.TemporaryDirectory() as target:
        import_episodes(EpisodesConfig(source="minari", path=str(path)), Store.at(target), seed=0)
    return 0


def cpu_seconds(work: Callable[[], int], repeats: int) -> list[float]:
    work()
    found = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return found


def peak_mb(path: Path) -> float:
    """Peak resident memory of a fresh process that imports a data set, MB."""
    done = subprocess.run(
        [sys.executable, __file__, "--import-only", str(path)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--import-only")
    arguments = parser.parse_args()
    if arguments.import_only:
        imported(Path(arguments.import_only))
        status = Path("/proc/self/status").read_text()
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)  # getrusage would tell this process's parent's too
        return
    root, results = Path(tempfile.mkdtemp()), {}
    total = arguments.episodes * arguments.steps
    for data_format in FORMATS:
        name = f"bench/{data_format}-v0"
        path = write(root, name, data_format, arguments.episodes, arguments.steps)
        pairs = [
            (cpu_seconds(lambda n=name: theirs(n), 1)[0], cpu_seconds(lambda p=path: ours(p), 1)[0])
            for _ in range(arguments.repeats)
        ]
        whole = float(np.median(cpu_seconds(lambda p=path: imported(p), 1)))
        ratios = [a / b for a, b in pairs]
        results[data_format] = {
            "minari_per_s": total / float(np.median([a for a, _ in pairs])),
            "phaseb_per_s": total / float(np.median([b for _, b in pairs])),
            "import_per_s": total / whole,
            "ratio": float(np.median(ratios)),
            "ratio_low": min(ratios),
            "ratio_high": max(ratios),
        }
        print(f"{data_format:8}", {key: round(value, 2) for key, value in results[data_format].items()}, flush=True)
    small = write(root, "bench/small-v0", "hdf5", arguments.episodes, arguments.steps)
    large = write(root, "bench/large-v0", "hdf5", 10 * arguments.episodes, arguments.steps)
    results["memory_mb"] = {"once": peak_mb(small), "ten_times": peak_mb(large)}
    print("memory  ", results["memory_mb"])
    print(json.dumps(results))


if __name__ == "__main__":
    main()
