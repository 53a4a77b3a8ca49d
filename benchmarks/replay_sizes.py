"""Part of `replay.py`: ten million transitions against a hundred thousand."""

import argparse
import time

import ray
from replay_material import SCHEMA, TRUSTED, UNIFORM, Sampling, Table, fill

from phaseb.config.policy import ReplayConfig
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.replay.spec import SampleSpec

LARGE, SMALL = 10_000_000, 100_000


def compare_sizes(table: Table, args: argparse.Namespace) -> None:
    """Processor time a sample: the clock would tell of what else the machine does between two calls."""
    for kind, where in ((Local, "one process"), (Remote, "shard and learner")):
        for name, spec, source in (("uniform", UNIFORM, 0), ("trust-weighted", TRUSTED, 1)):
            large, small = (kind(num, spec, source, args.seconds) for num in (LARGE, SMALL))
            table.compare(f"cost a sample, 10 M / 100 k, {where}, {name}", "≤ 1.5", large, small, args.repeats, "ns")
            large.close(), small.close()
            del large, small


class Local:
    """Nanoseconds of this process a transition."""

    def __init__(self, num: int, spec: SampleSpec, source: int, seconds: float) -> None:
        self.seconds = seconds
        self.replay = LocalReplay(SCHEMA, ReplayConfig(capacity=int(num * 1.02)))
        fill(self.replay, num, source)
        if source:
            fill(self.replay, 1000, 0)
        self.call = Sampling(self.replay, spec)
        warm_up(self.call, num, source)

    def __call__(self) -> float:
        count, begin, end = 0, time.process_time(), time.monotonic() + self.seconds
        while time.monotonic() < end:
            count += self.call()
        return (time.process_time() - begin) / count * 1e9

    def close(self) -> None:
        """Nothing is left behind by an object."""


class Remote:
    """Nanoseconds of the shard's process and the learner's together a transition; insert traffic is over by then."""

    def __init__(self, num: int, spec: SampleSpec, source: int, seconds: float) -> None:
        self.seconds = seconds
        self.replay = ReplayClient.start(SCHEMA, ReplayConfig(capacity=int(num * 1.02)))
        fill(self.replay, num, source)
        if source:
            fill(self.replay, 1000, 0)
        self.call = Sampling(self.replay, spec)
        warm_up(self.call, num, source)

    def __call__(self) -> float:
        self.call()
        count, begin, end = 0, self.used_s(), time.monotonic() + self.seconds
        while time.monotonic() < end:
            count += self.call()
        return (self.used_s() - begin) / count * 1e9

    def close(self) -> None:
        self.replay.close()

    def used_s(self) -> float:
        shards = ray.get([shard.status.remote() for shard in self.replay.shards])
        return time.process_time() + sum(float(status["cpu_s"]) for status in shards)


def warm_up(call: Sampling, num: int, source: int) -> None:
    for _ in range(110 if num > SMALL and source else 0):
        call()  # until it has its guide
