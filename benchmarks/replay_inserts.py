"""Part of `replay.py`: what it costs to put transitions in, and the memory that they take."""

import argparse
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from replay_material import BATCH, SCHEMA, TRUSTED, Table, fill, make_segments

from phaseb.config.policy import ReplayConfig
from phaseb.replay.local import LocalReplay
from phaseb.replay.shard import DurablePartition
from phaseb.runtime.storage import Store


def compare_inserts(table: Table, args: argparse.Namespace) -> None:
    """A shard's insert, checks, de-duplication and bookkeeping included, without its journal and with it, on disk."""
    num = min(args.transitions, 500_000)
    config = ReplayConfig(capacity=int(num * 1.02))
    parts = [make_segments(num, 0, first) for first in range(1, args.repeats + 3)]
    target = np.zeros_like(parts[0].rows)

    def copy() -> float:
        begin = time.perf_counter()
        target[:] = parts[0].rows
        return target.nbytes / (time.perf_counter() - begin) / 1e9

    with tempfile.TemporaryDirectory(prefix="phaseb-bench-") as folder:
        for name, bar, store in (("", "≥ 0.2", None), (", journal on", "-", Store.at(folder))):
            partition = DurablePartition(SCHEMA, config, store)
            feed = iter(parts)

            def insert(partition: DurablePartition = partition, feed: object = feed) -> float:
                part = next(feed)  # type: ignore[call-overload]
                begin = time.perf_counter()
                partition.insert(part)
                return part.rows.nbytes / (time.perf_counter() - begin) / 1e9

            insert(), insert(), copy()  # the second one fills the ring: its memory is there
            table.compare(f"bulk insert{name} / memcpy of the same bytes", bar, insert, copy, args.repeats, "GB/s")


def measure_memory(table: Table, args: argparse.Namespace) -> None:
    """Memory that a full, weighted buffer takes beyond its transitions, in a process of its own."""
    command = [sys.executable, __file__, str(args.transitions)]
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
    sums = replay.partitions[0].strata[1]._index("weight")
    sums._guide = sums._make_guide()
    gc.collect()
    print(json.dumps({"resident": resident_bytes() - before, "payload": held * 4 * SCHEMA.width}))


if __name__ == "__main__":
    tell_memory(int(sys.argv[1]))
