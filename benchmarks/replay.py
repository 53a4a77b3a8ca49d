"""How fast, how lean and how fair is the replay buffer, against its peers and against plain NumPy?

    OMP_NUM_THREADS=1 python benchmarks/replay.py [--peers PEERS/bin/python] [--json FILE] [--parts PART …]

Every ratio is of two rates that were measured one right after the other, and the median over the repeats: the machine
may be busy with other things, and both sides then suffer alike. 64-d latents, 8-d actions, batches of 256, a million
transitions of each source; remote calls carry 64 batches. `--peers` is a Python with cpprb and TorchRL (see
`replay_peers.py`), which the part `peers` needs; the part `sizes` takes 8 GB.
"""

import argparse
import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import ray
import torch
from replay_inserts import compare_inserts, measure_memory
from replay_learning import compare_learning
from replay_material import (
    BATCH,
    BATCHES,
    SCHEMA,
    TRUSTED,
    UNIFORM,
    Peer,
    PlainGather,
    Sampling,
    Table,
    fill,
    rate,
)
from replay_sizes import compare_sizes

from phaseb.config.policy import ReplayConfig
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay


def timed(call: Callable[[], int], args: argparse.Namespace) -> Callable[[], float]:
    return lambda: rate(call, args.seconds)


def compare_sampling(table: Table, args: argparse.Namespace) -> None:
    config = ReplayConfig(capacity=int(args.transitions * 1.02) + 100)
    remote, local = ReplayClient.start(SCHEMA, config), LocalReplay(SCHEMA, config)
    for source in (0, 1):
        fill(remote, args.transitions, source)
    fill(local, args.transitions, 0)
    gather = timed(PlainGather(args.transitions), args)
    uniform, trusted = (timed(Sampling(remote, spec), args) for spec in (UNIFORM, TRUSTED))
    near = timed(Sampling(local, UNIFORM), args)
    table.compare("remote sampling / plain local NumPy gather", "≥ 0.5", uniform, gather, args.repeats)
    table.compare("remote trust-weighted / remote uniform", "≥ 0.7", trusted, uniform, args.repeats)
    table.compare("local sampling / plain local NumPy gather", "-", near, gather, args.repeats)
    remote.close()


def compare_peers(table: Table, args: argparse.Namespace) -> None:
    if not args.peers:
        print("peers: left out, no --peers given", flush=True)
        return
    config = ReplayConfig(capacity=int(args.transitions * 1.02) + 100)
    for name, spec, bars in (("cpprb", TRUSTED, ("≥ 1", "≥ 1")), ("torchrl", UNIFORM, ("≥ 10", "≥ 3"))):
        replay = LocalReplay(SCHEMA, config) if name == "cpprb" else ReplayClient.start(SCHEMA, config)
        fill(replay, args.transitions, int(spec is TRUSTED))
        ours = timed(Sampling(replay, spec), args)
        peer = Peer(args.peers, name, args.transitions, args.seconds)
        who = "local weighted draws / cpprb" if name == "cpprb" else "remote / TorchRL on Ray"
        for kind, bar in zip(("minibatch", "large"), bars, strict=True):
            row = f"{who}, calls of {BATCH if kind == 'minibatch' else f'{BATCHES} · {BATCH}'}"
            table.compare(row, bar, ours, lambda peer=peer, kind=kind: peer.rate(kind), args.repeats)  # type: ignore[misc]
        peer.close()
        if isinstance(replay, ReplayClient):
            replay.close()


def measure_costs(table: Table, args: argparse.Namespace) -> None:
    """Processor time of calls, which a busy machine does not stretch: a fixed part a call, and one a transition."""
    config = ReplayConfig(capacity=int(args.transitions * 1.02) + 100)
    remote, local = ReplayClient.start(SCHEMA, config), LocalReplay(SCHEMA, config)
    fill(remote, args.transitions, 0)
    fill(local, args.transitions, 0)
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


PARTS = {
    "inserts": compare_inserts,
    "memory": measure_memory,
    "learning": compare_learning,
    "sampling": compare_sampling,
    "peers": compare_peers,
    "costs": measure_costs,
    "sizes": compare_sizes,
}
WITHOUT_RAY = {"inserts", "memory"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--latent", type=int, default=16, help="latent size of the SAC comparison")
    parser.add_argument("--peers", help="a Python that has cpprb and torchrl")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", help="write the rows to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    if not set(args.parts) <= WITHOUT_RAY:
        start_ray()
    table = Table()
    for part in args.parts:
        PARTS[part](table, args)
    ray.shutdown()
    line = json.dumps({"benchmark": "replay", "load": os.getloadavg()[0], "rows": table.rows})
    print(line)
    if args.json:
        Path(args.json).write_text(line + "\n")


def start_ray() -> None:
    os.environ.update(RAY_AUTH_TOKEN=uuid.uuid4().hex, RAY_USAGE_STATS_ENABLED="0")
    # A learner would be a worker of Ray's too: shards and learner share the machine alike.
    os.environ.update(RAY_worker_niceness="0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=400 * 2**20,
    )


if __name__ == "__main__":
    main()
