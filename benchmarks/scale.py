"""Do time an episode and memory stay flat from 500 episodes to many times as many, stage by stage?

    OMP_NUM_THREADS=1 python benchmarks/scale.py [--small 500] [--large 10000] [--quick] [--out FILE]

The cell makes the episodes (state observations, 60 steps). Every stage runs at both sizes in a process of its own,
which tells its processor time and the most memory it held: recording into shards, reading shards, latents (here
standardised states) shard by shard, bricks, rollouts of an untrained ensemble from every episode, replay (insert with a
fixed capacity, then draw). Reading is also measured against pyarrow reading the same files bare.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).parent))
from paired import ratio, show, timed, told

from phaseb.bricks.clusters import fit_clusters
from phaseb.config.bricks import BricksConfig
from phaseb.config.environment import EnvironmentConfig
from phaseb.config.replay import ReplayConfig
from phaseb.config.world_model import WorldModelConfig
from phaseb.data_parallel import LearnerContext
from phaseb.episodes.episode import Episode
from phaseb.episodes.pipeline import map_shards
from phaseb.episodes.shards import iter_episodes, read_shard, shard_name, shard_names, write_shard
from phaseb.episodes.trajectories import Trajectories
from phaseb.latents.arrays import to_trajectories
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.storage import Store
from phaseb.workcell.collect import collect_episodes
from phaseb.world_model.learner import make_learner

ROWS = 64
STAGES = ("record", "read", "latents", "bricks", "rollouts", "replay")


class Standardise:
    """States as latents: what a stage costs beside its network."""

    def __call__(self, episodes: Sequence[Episode]) -> Trajectories:
        z = np.stack([e.state for e in episodes]).astype(np.float32)
        z = (z - z.mean((0, 1))) / np.maximum(z.std((0, 1)), 0.05)
        actions = np.stack([e.actions for e in episodes]).astype(np.float32)
        return to_trajectories(episodes, z, actions)


def record(folder: Store, count: int) -> None:
    total = -(-count // ROWS)
    for i in range(total):
        indices = range(i * ROWS, min((i + 1) * ROWS, count))
        write_shard(folder.folder("episodes"), shard_name(i, total),
                    collect_episodes(EnvironmentConfig(observation="state"), 0, indices))  # fmt: skip


def read(folder: Store, count: int) -> None:
    assert sum(1 for _ in iter_episodes(folder.folder("episodes"))) == count


def latents(folder: Store, count: int) -> None:
    map_shards(folder.folder("episodes"), folder.folder("latents"), Standardise)


def _parts(folder: Store) -> list[Trajectories]:
    store = folder.folder("latents")
    return [part for name in shard_names(store) if isinstance(part := read_shard(store, name), Trajectories)]


def bricks(folder: Store, count: int) -> None:
    features = np.concatenate([np.concatenate([p.z.mean(1), p.z.std(1)], 1) for p in _parts(folder)])
    fit_clusters(BricksConfig(), features.astype(np.float64), 0)


def rollouts(folder: Store, count: int) -> None:
    store = folder.folder("latents")
    first = read_shard(store, shard_names(store)[0])
    assert isinstance(first, Trajectories)
    data = Trajectories(**{**vars(first), "splits": ("train",) * len(first)})
    bundle = make_learner(WorldModelConfig(), data, LearnerContext(0)).bundle()
    for name in shard_names(store):
        part = read_shard(store, name)
        assert isinstance(part, Trajectories)
        actions = torch.from_numpy(part.actions)
        bundle.rollout(torch.from_numpy(part.z[:, 0]), actions, 60, torch.Generator().manual_seed(0))


def replay(folder: Store, count: int) -> None:
    store, held = folder.folder("latents"), None
    for name in shard_names(store):
        part = read_shard(store, name)
        assert isinstance(part, Trajectories)
        schema = TransitionSchema(part.z.shape[-1], part.actions.shape[-1])
        held = held or LocalReplay(schema, ReplayConfig(capacity=20_000))
        held.insert(part, "real")
        held.source([SampleSpec("uniform", 0, 0.0)], 256, 0.99).sample(0, 4)


def one(stage: str, folder: str, count: int) -> None:
    """Run a stage and tell its processor seconds and peak memory in MB, less what the imports alone hold."""
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    globals()[stage](Store.at(folder), count)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak_mb": peak / 1024, "imports_mb": before / 1024}))


def measure(folder: str, count: int) -> dict[str, dict[str, float]]:
    found = {}
    for stage in STAGES:
        words = [sys.executable, __file__, "--one", stage, folder, str(count)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{stage} of {count} episodes failed: {done.stderr[-800:]}")
        found[stage] = json.loads(done.stdout.splitlines()[-1])
    return found


def reading(folder: str, repeats: int) -> dict[str, float]:
    """How many times as fast as pyarrow bare (tables, nothing made of them) the same files are read."""
    store = Store.at(folder).folder("latents")
    paths = [store.path(name) for name in shard_names(store)]
    seconds = timed({
        "bare": lambda: [pq.read_table(path) for path in paths],
        "phaseb": lambda: [read_shard(store, name) for name in shard_names(store)],
    }, repeats)  # fmt: skip
    return ratio(seconds, "bare", "phaseb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=500)
    parser.add_argument("--large", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="64 and 256 episodes")
    parser.add_argument("--one", nargs=3, metavar=("STAGE", "FOLDER", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.one:
        one(options.one[0], options.one[1], int(options.one[2]))
        return
    small, large = (64, 256) if options.quick else (options.small, options.large)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        of_small, of_large = measure(first, small), measure(second, large)
        read_ratio = reading(first, options.repeats)
    rows = []
    for stage in STAGES:
        few, many = of_small[stage], of_large[stage]
        per_episode = (many["seconds"] / large) / (few["seconds"] / small)
        memory = many["peak_mb"] / few["peak_mb"]
        each_ms, peak_mb = 1e3 * many["seconds"] / large, many["peak_mb"]
        text = f"× {per_episode:.2f}, × {memory:.2f} ({each_ms:.2f} ms, {peak_mb:.0f} MB)"
        rows.append((f"{stage}: time an episode, peak memory", text, "≤ 1.1, ≤ 1.3"))
    rows.append(("latents read / pyarrow bare", told(read_ratio), "≥ 0.7"))
    result = {
        "benchmark": "scale",
        "small": small,
        "large": large,
        "few": of_small,
        "many": of_large,
        "read": read_ratio,
    }
    show(f"{large:,} episodes against {small:,}: processor time, one thread", rows, result, options.out)


if __name__ == "__main__":
    main()
