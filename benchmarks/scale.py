"""Do time an episode and memory stay flat from 500 episodes to many times as many, stage by stage?

    OMP_NUM_THREADS=1 python benchmarks/scale.py [--sizes 500 5000 50000] [--folder DIR] [--quick] [--out FILE]

The cell makes the episodes (state observations, 60 steps). Then the stages of a run go over them as they are: import
(from Parquet files), encode, bricks, synthesize (as many rollouts as episodes), trust, and the filling of the replay
(default capacity, then drawn from); beside them a bounded sample, and one look at all rollouts. Each is done at each
size in a process of its own, without Ray's workers, so that one process's memory is all there is; it tells its
processor time and the most memory it held. Networks are trained for a few steps alone: a training's length does not go
with the number of episodes.

Told are the most memory at the largest size over that at the smallest; time an episode likewise; and, since a fixed
part (imports, fits) flatters that, what a further episode costs between the last two sizes over between the first two:
1 is a straight line. Reading is also measured against pyarrow reading the same files bare.
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).parent))
from paired import ratio, show, timed, told

from phaseb.config.load import load_config
from phaseb.config.root import Config
from phaseb.dynamics.gru_ensemble.learner import make_learner
from phaseb.episodes.shards import read_shard, shard_name, shard_names, write_shard, write_trajectories
from phaseb.episodes.streaming import batches, sample_trajectories
from phaseb.nn.data_parallel import WorkerContext
from phaseb.pipeline.stage import StageContext
from phaseb.replay.local import LocalReplay
from phaseb.runtime.storage import Store
from phaseb.stages import bricks, collect, encode, gate, synthesize
from phaseb.stages.negatives import negative_rollouts
from phaseb.stages.policy import every_episode
from phaseb.stages.replay_streams import insert_all, runs_of, schema_of, streams_of
from phaseb.workcell.collect import collect_episodes

ROWS = 50  # divides the sizes, so that a smaller set is the first files of a larger one
SETTINGS = (
    "episodes.source=parquet",
    "environment.observation=state",
    "latents.num_steps=20",
    "latents.decoder_steps=20",
    "trust.num_steps=20",
    "negatives.num_steps=20",
    "resources.num_tasks=1",
)


def record(home: Store, first: int, last: int, total: int) -> None:
    """The shards `first` to `last - 1` of the largest set."""
    environment = load_config(None, [*SETTINGS, "episodes.path=none"]).environment
    for i in range(first, last):
        name = shard_name(i, total)
        if not home.exists(name):
            write_shard(home, name, collect_episodes(environment, 0, range(i * ROWS, (i + 1) * ROWS)))


def prepare(home: Store, config: Config) -> None:
    """Before synthesis and trust: a world model as it is made, and the other generators' rollouts."""
    train = sample_trajectories(home.folder("latents"), ("train",), 300, 0)
    make_learner(config.dynamics.gru, train, WorkerContext(0)).bundle().save(home.folder("dynamics", "gru"))
    write_trajectories(home.folder("negatives"), negative_rollouts(config, train))


def draw(home: Store, config: Config) -> None:
    """What every fit does first: look at all ids, read all shards, keep a bounded sample."""
    sample_trajectories(home.folder("latents"), ("train", "dev"), config.memory.fit_episodes, config.run.seed)


def look(home: Store, config: Config) -> None:
    """What every count does: all rollouts once, batch by batch."""
    assert sum(len(part) for part in batches(home.folder("synthetic"))) == config.synthesis.num_episodes


def fill_replay(home: Store, config: Config) -> None:
    real = sample_trajectories(home.folder("latents"), ("train",), config.memory.fit_episodes, config.run.seed)
    replay = LocalReplay(schema_of(real, config), config.replay)
    means = insert_all(replay, config, real, *every_episode(config, home), {})
    streams = streams_of(config, runs_of(config), means)
    replay.source(streams, config.policy.batch_size, config.policy.discount).sample(0, 16)


def _stage(execute: Callable[[StageContext], Any]) -> Callable[[Store, Config], Any]:
    return lambda home, config: execute(StageContext(config, home, "scale", "scale"))


STAGES: dict[str, Callable[[Store, Config], Any]] = {
    "import": _stage(collect.execute),
    "encode": _stage(encode.execute),
    "bricks": _stage(bricks.execute),
    "prepare": prepare,
    "sample": draw,
    "synthesize": _stage(synthesize.execute),
    "trust": _stage(gate.execute),
    "batches": look,
    "replay": fill_replay,
}
TOLD = tuple(name for name in STAGES if name != "prepare")


def one(stage: str, home: str, count: int) -> None:
    """Run a stage and tell its processor seconds and peak memory in MB, beside what the imports alone hold."""
    torch.set_num_threads(1)
    overrides = [*SETTINGS, f"run.dir={home}", f"episodes.path={home}/source", f"synthesis.num_episodes={count}"]
    config, before = load_config(None, overrides), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    STAGES[stage](Store.at(home), config)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak_mb": peak / 1024, "imports_mb": before / 1024}))


def measure(source: Store, home: Path, count: int) -> dict[str, dict[str, float]]:
    """Every stage over the first `count` episodes of `source`."""
    total = count // ROWS
    (home / "source").mkdir(parents=True)
    for i, name in enumerate(shard_names(source)[:total]):
        (home / "source" / shard_name(i, total)).symlink_to(source.path(name))
    found = {}
    for stage in STAGES:
        words = [sys.executable, __file__, "--one", stage, str(home), str(count)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{stage} of {count} episodes failed: {done.stderr[-800:]}")
        found[stage] = json.loads(done.stdout.splitlines()[-1])
        print(f"{count:>7} {stage:<11} {found[stage]['seconds']:8.1f} s {found[stage]['peak_mb']:7.0f} MB", flush=True)
    return {stage: found[stage] for stage in TOLD}


def reading(folder: Store, repeats: int) -> dict[str, dict[str, float]]:
    """How many times as fast as pyarrow bare (tables, nothing made of them) the same files are read: by a process that
    has not read them yet, so hashes their rows, and again."""
    paths, written = [folder.path(name) for name in shard_names(folder)], itertools.count(1)

    def again() -> None:
        for name in shard_names(folder):
            read_shard(folder, name)

    def first() -> None:
        for path in paths:  # a file of another time is another file
            os.utime(path, (next(written), 1))
        again()

    timed({"first": again}, 1)
    seconds = timed({"again": again, "bare": lambda: [pq.read_table(path) for path in paths], "first": first}, repeats)
    return {name: ratio(seconds, "bare", name) for name in ("again", "first")}


def compared(found: dict[int, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """By stage: peak memory and time an episode, largest over smallest size; and the cost of a further episode."""
    sizes = sorted(found)
    result = {}
    for stage in TOLD:
        seconds = [found[size][stage]["seconds"] for size in sizes]
        slopes = [(b - a) / (m - n) for a, b, n, m in zip(seconds, seconds[1:], sizes, sizes[1:], strict=False)]
        result[stage] = {
            "memory": found[sizes[-1]][stage]["peak_mb"] / found[sizes[0]][stage]["peak_mb"],
            "time": seconds[-1] / sizes[-1] / (seconds[0] / sizes[0]),
            "straightness": slopes[-1] / slopes[0] if len(slopes) > 1 else float("nan"),
            "ms": 1e3 * slopes[-1],
            "peak_mb": found[sizes[-1]][stage]["peak_mb"],
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 5000, 50_000], help="ascending, multiples of 50")
    parser.add_argument("--folder", help="keep what the cell recorded here, and take what is here already")
    parser.add_argument("--repeats", type=int, default=5, help="of reading")
    parser.add_argument("--quick", action="store_true", help="100, 200 and 400 episodes")
    parser.add_argument("--one", nargs=3, metavar=("STAGE", "FOLDER", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.one:
        one(options.one[0], options.one[1], int(options.one[2]))
        return
    sizes = [100, 200, 400] if options.quick else options.sizes
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(options.folder or folder)
        source, total = Store.at(kept / f"cell-{sizes[-1]}"), sizes[-1] // ROWS
        record(source, 0, total, total)
        found, read_ratio = {}, {}
        for size in sizes:
            home = Path(folder) / str(size)
            found[size] = measure(source, home, size)
            read_ratio = read_ratio or reading(Store.at(home / "latents"), options.repeats)
            shutil.rmtree(home)
    result = compared(found)
    rows = []
    for stage, of in result.items():
        ratios = f"× {of['memory']:.2f}; × {of['time']:.2f}; × {of['straightness']:.2f}"
        text = f"{ratios} ({of['ms']:.2f} ms, {of['peak_mb']:.0f} MB)"
        rows.append((f"{stage}: memory; time an episode; a further episode's cost", text, "≤ 1.3; ≤ 1.1; ≤ 1.1"))
    rows.append(("latents read again / pyarrow bare", told(read_ratio["again"]), "≥ 0.7"))
    rows.append(("latents read for the first time / pyarrow bare", told(read_ratio["first"]), ""))
    sized = {str(size): stages for size, stages in found.items()}
    told_of = {"benchmark": "scale", "sizes": sizes, "stages": sized, "compared": result, "read": read_ratio}
    show(f"{sizes[-1]:,} episodes against {sizes[0]:,}: processor time, one thread", rows, told_of, options.out)


if __name__ == "__main__":
    main()
