"""How fast, how lean and how fair is the replay buffer, against its peers and against plain NumPy?

    OMP_NUM_THREADS=1 python benchmarks/replay.py [--peers PEERS/bin/python] [--large] [--json FILE]

Every ratio is of two rates that were measured one right after the other, and the median over the repeats: the machine
may be busy with other things, and both sides then suffer alike. 64-d latents, 8-d actions, batches of 256; remote
calls carry 64 batches. `--peers` is a Python with cpprb and TorchRL (see `replay_peers.py`); `--large` adds a buffer of
ten million transitions (4 GB).
"""

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ray
import torch
from replay_material import (
    BATCH,
    BATCHES,
    PRIORITY,
    SCHEMA,
    STEPS,
    TRUSTED,
    UNIFORM,
    Peer,
    PlainGather,
    Sampling,
    Table,
    fill,
    make_segments,
    rate,
)  # fmt: skip

from phaseb.config.policy import PolicyConfig
from phaseb.config.replay import ReplayConfig
from phaseb.data_parallel import LearnerContext
from phaseb.policy.batches import RunSpec
from phaseb.policy.learner import SACLearner
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.replay.partition import Partition
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import Segments
from phaseb.replay.spec import SampleSpec


def compare_sampling(table: Table, args: argparse.Namespace) -> None:
    half, seconds, repeats = args.transitions // 2, args.seconds, args.repeats
    config = ReplayConfig(capacity=int(half * 1.02) + 100, prefetch_depth=3)
    remote, local = ReplayClient.start(SCHEMA, config), LocalReplay(SCHEMA, config)
    for source in (0, 1):
        fill(remote, half, source)
        fill(local, half, source)
    gather = PlainGather(args.transitions)
    calls = {"uniform": Sampling(remote, UNIFORM), "trusted": Sampling(remote, TRUSTED)}
    near = {"uniform": Sampling(local, UNIFORM), "priority": Sampling(local, PRIORITY)}

    def ours(call: Callable[[], int]) -> Callable[[], float]:
        return lambda: rate(call, seconds)

    uniform = ours(calls["uniform"])
    table.compare("remote sampling / plain local NumPy gather", "≥ 0.5", uniform, ours(gather), repeats)
    table.compare("remote trust-weighted / remote uniform", "≥ 0.7", ours(calls["trusted"]), uniform, repeats)
    table.compare("local sampling / plain local NumPy gather", "-", ours(near["uniform"]), ours(gather), repeats)
    if args.peers:
        peer = Peer(args.peers, "cpprb", args.transitions, seconds)
        priority = ours(near["priority"])
        minibatch, large = (lambda: peer.rate("minibatch")), (lambda: peer.rate("large"))
        table.compare("local priority / cpprb, calls of 256", "≥ 1", priority, minibatch, repeats)
        table.compare("local priority / cpprb, equally large calls", "≥ 1", priority, large, repeats)
        peer.close()
        peer = Peer(args.peers, "torchrl", args.transitions, seconds)
        table.compare("remote / TorchRL on Ray, calls of 256", "≥ 10", uniform, minibatch, repeats)
        table.compare("remote / TorchRL on Ray, large calls", "≥ 3", uniform, large, repeats)
        peer.close()
    remote.close()


def compare_learning(table: Table, args: argparse.Namespace) -> None:
    """SAC as the demo runs it: twelve runs at once, from shards and from batches that lie in memory."""
    specs = [RunSpec(f"arm{arm}", seed) for arm in range(4) for seed in range(3)]
    trusted = {"synthetic_share": 0.5, "weight_column": "weight", "weighting": "sampling"}
    laws = [{}, {"synthetic_share": 0.1}, trusted, trusted]
    streams = [SampleSpec(s.name, s.seed, **laws[int(s.arm[3])]) for s in specs]
    schema = TransitionSchema(args.latent, 2)
    rows = {source: make_small(schema, source) for source in (0, 1)}
    remote = ReplayClient.start(schema, ReplayConfig())
    for part in rows.values():
        remote.insert_segments(part)
    config = PolicyConfig()
    source = remote.source(streams, config.batch_size, config.discount)
    memory = InMemory(remote.source(streams, config.batch_size, config.discount), config.prefetch)
    learners = [SACLearner(config, feed, specs, LearnerContext(0)) for feed in (source, memory)]
    at = [config.num_steps // 2] * 2

    def updates(k: int) -> Callable[[], float]:
        def run() -> float:
            begin = time.perf_counter()
            for _ in range(2 * config.prefetch):
                learners[k].step(at[k])
                at[k] += 1
            return 2 * config.prefetch / (time.perf_counter() - begin)

        return run

    updates(0)(), updates(1)()
    waited, since = source.wait_s, time.perf_counter()
    shares = []

    def remote_updates() -> float:
        nonlocal waited, since
        waited, since = source.wait_s, time.perf_counter()
        found = updates(0)()
        shares.append((source.wait_s - waited) / (time.perf_counter() - since))
        return found

    table.compare("SAC updates from shards / from memory", "≥ 0.95", remote_updates, updates(1), args.repeats)
    table.add("share of its time that a learner waits", "≤ 0.02", statistics.median(shares), "SAC of the demo", shares)
    remote.close()


def measure_costs(table: Table, args: argparse.Namespace) -> None:
    """Processor time of calls, which a busy machine does not stretch: a fixed part a call, and one a transition."""
    half = args.transitions // 2
    config = ReplayConfig(capacity=int(half * 1.02) + 100, prefetch_depth=3)
    remote, local = ReplayClient.start(SCHEMA, config), LocalReplay(SCHEMA, config)
    fill(remote, half, 0)
    fill(local, half, 0)
    found = {}
    for num_batches in (1, BATCHES):
        call, near = Sampling(remote, UNIFORM, num_batches), Sampling(local, UNIFORM, num_batches)
        count = max(20, 1000 // num_batches)
        shard, client = remote.status()[0]["cpu_s"], time.process_time()
        for _ in range(count):
            call()
        client = time.process_time() - client
        shard = remote.status()[0]["cpu_s"] - shard
        begin = time.process_time()
        for _ in range(count):
            near()
        found[num_batches] = [x / count for x in (shard, client, time.process_time() - begin)]
    for k, side in enumerate(("shard", "learner", "in one process")):
        each = (found[BATCHES][k] - found[1][k]) / ((BATCHES - 1) * BATCH)
        table.add(f"processor time a transition, {side}", "-", each * 1e9, "ns")
        table.add(f"processor time a call, {side}", "-", (found[1][k] - each * BATCH) * 1e3, "ms")
    remote.close()


class InMemory:
    """The same few batches again and again, already there."""

    def __init__(self, source: object, num_batches: int) -> None:
        self.batches = source.sample(0, num_batches)  # type: ignore[attr-defined]

    def sample(self, step: int, num_batches: int) -> dict[str, np.ndarray]:
        return {name: array[:num_batches] for name, array in self.batches.items()}


def make_small(schema: TransitionSchema, source: int) -> Segments:
    """The demo's size: 50 real episodes, 200 synthetic ones."""
    count = (50, 200)[source]
    g = np.random.default_rng(source)
    rows = g.standard_normal((count * (STEPS + 1), schema.width)).astype(np.float32).clip(-1, 1)
    rows[:, schema.terminal] = 0
    rows[:, schema.weight("weight")] = np.abs(rows[:, schema.weight("weight")])
    codes, zeros = np.arange(count) * 2 + source, np.zeros(count, np.int64)
    return Segments(schema, rows, np.full(count, STEPS), codes, zeros, np.full(count, source, np.uint8))


def compare_sizes(table: Table, args: argparse.Namespace) -> None:
    """Seconds a sample from ten million transitions against a hundred thousand."""
    for name, spec, source in (("uniform", UNIFORM, 0), ("trust-weighted", TRUSTED, 1)):
        calls = []
        for num in (10_000_000, 100_000):
            replay = LocalReplay(SCHEMA, ReplayConfig(capacity=int(num * 1.02)))
            fill(replay, num, source)
            if source == 1:
                fill(replay, 1000, 0)
            calls.append(Sampling(replay, spec))
            for _ in range(110 if num > 10**6 and source else 0):
                calls[-1]()  # until it has its guide
        large, small = (lambda call=call: 1e9 / rate(call, args.seconds) for call in calls)
        table.compare(f"cost a sample, 10 M / 100 k, {name}", "≤ 1.5", large, small, args.repeats, "ns")
        del calls, replay, large, small


def compare_inserts(table: Table, args: argparse.Namespace) -> None:
    num = min(args.transitions, 500_000)
    partition = Partition(SCHEMA, ReplayConfig(capacity=int(num * 1.02)))
    parts = [make_segments(num, 0, first) for first in range(1, args.repeats + 3)]
    target = np.zeros_like(parts[0].rows)
    for part in parts[:2]:
        partition.insert(part)
        target[:] = part.rows
    feed = iter(parts[2:])

    def insert() -> float:
        part = next(feed)
        begin = time.perf_counter()
        partition.insert(part)
        return part.rows.nbytes / (time.perf_counter() - begin) / 1e9

    def copy() -> float:
        begin = time.perf_counter()
        target[:] = parts[0].rows
        return target.nbytes / (time.perf_counter() - begin) / 1e9

    table.compare("bulk insert / memcpy of the same bytes", "≥ 0.2", insert, copy, args.repeats, "GB/s")


def measure_memory(table: Table, args: argparse.Namespace) -> None:
    """Memory that a full, weighted buffer takes beyond its transitions, in a process of its own."""
    command = [sys.executable, __file__, "--memory", str(args.transitions)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    share = told["resident"] / told["payload"] - 1
    table.add("memory beyond the payload", "≤ 0.10", share, f"{told['resident']:,} against {told['payload']:,} bytes")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def tell_memory(num: int) -> None:
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=num))
    fill(replay, 200_000, 0)  # what the heap keeps for itself is no part of the buffer
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=num))
    gc.collect()
    before = resident_bytes()
    fill(replay, int(num * 1.1), 1)
    held = replay.num_transitions
    replay.source([TRUSTED], BATCH, 0.99).sample(0, 1)
    sums = replay.partitions[0].strata[1]._index("weight", 1)
    sums._guide = sums._make_guide()
    gc.collect()
    print(json.dumps({"resident": resident_bytes() - before, "payload": held * SCHEMA.row_bytes}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--latent", type=int, default=16, help="latent size of the SAC comparison")
    parser.add_argument("--peers", help="a Python that has cpprb and torchrl")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--json", help="write the rows to this file")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        return tell_memory(args.memory)
    torch.set_num_threads(1)
    os.environ.update(RAY_AUTH_TOKEN=uuid.uuid4().hex, RAY_USAGE_STATS_ENABLED="0", OMP_NUM_THREADS="1")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")
    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=400 * 2**20,
    )  # fmt: skip
    table = Table()
    compare_inserts(table, args)
    measure_memory(table, args)
    compare_learning(table, args)
    compare_sampling(table, args)
    measure_costs(table, args)
    if args.large:
        compare_sizes(table, args)
    ray.shutdown()
    line = json.dumps({"benchmark": "replay", "load": os.getloadavg()[0], "rows": table.rows})
    print(line)
    if args.json:
        Path(args.json).write_text(line + "\n")
    return None


if __name__ == "__main__":
    main()
