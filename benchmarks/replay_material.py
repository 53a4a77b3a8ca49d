"""What `replay.py` measures with: made-up transitions, calls to be timed, peers in processes of their own, a table."""

import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import Segments
from phaseb.replay.spec import SampleSpec

LATENT, ACTION, STEPS, BATCH, BATCHES = 64, 8, 60, 256, 64
SCHEMA = TransitionSchema(LATENT, ACTION)
UNIFORM = SampleSpec("uniform", 0)
TRUSTED = SampleSpec("trusted", 0, 1.0, "weight", "sampling")


def make_segments(num: int, source: int, first: int = 0) -> Segments:
    """Episodes of 60 steps of random numbers, about `num` transitions; weights are random too."""
    count = max(1, num // STEPS)
    g = np.random.default_rng(source + first)
    rows = g.random((count * (STEPS + 1), SCHEMA.width), dtype=np.float32)
    codes = np.arange(count) * 2 + source + first * 10**7
    sources = np.full(count, source, dtype=np.uint8)
    return Segments(SCHEMA, rows, np.full(count, STEPS), codes, np.zeros(count, np.int64), sources)


def fill(replay: LocalReplay | ReplayClient, num: int, source: int) -> None:
    for first in range(0, num, 100_000):
        replay.insert_segments(make_segments(min(100_000, num - first), source, 1 + first))


class Sampling:
    """Calls of 64 batches, one after the other."""

    def __init__(self, replay: LocalReplay | ReplayClient, spec: SampleSpec, num_batches: int = BATCHES) -> None:
        self.source, self.num_batches, self.step = replay.source([spec], BATCH, 0.99), num_batches, 0
        for _ in range(40):  # until a guide is made, and memory is warm
            self()

    def __call__(self) -> int:
        self.source.sample(self.step, self.num_batches)
        self.step += self.num_batches
        return self.num_batches * BATCH


class PlainGather:
    """What a learner would do with all columns in its own process: the same rows by NumPy indexing."""

    def __init__(self, num: int) -> None:
        g = np.random.default_rng(0)
        sizes = (LATENT, ACTION, 1, 1, LATENT)
        self.columns = [g.random((num, size), dtype=np.float32) for size in sizes]
        self.num, self.generator = num, g

    def __call__(self) -> int:
        rows = self.generator.integers(0, self.num, BATCHES * BATCH)
        self.kept = [column[rows] for column in self.columns]
        return len(rows)


class Peer:
    """A peer in its own process and environment."""

    def __init__(self, python: str, name: str, num: int, seconds: float) -> None:
        script = str(Path(__file__).with_name("replay_peers.py"))
        command = [python, script, name, str(num), str(seconds)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == "ready", f"{name} did not start"

    def rate(self, kind: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(kind, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


def rate(call: Callable[[], int], seconds: float) -> float:
    """Transitions a second."""
    call()
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        count += call()
    return count / (time.perf_counter() - begin)


class Table:
    """Rows of the result: ratio, bar, and the rates behind it."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def compare(
        self, name: str, bar: str, one: Callable[[], float], other: Callable[[], float], repeats: int, unit: str = "1/s"
    ) -> None:
        pairs = [(one(), other()) for _ in range(repeats)]
        ratio = statistics.median(a / b for a, b in pairs)
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        self.add(name, bar, ratio, f"{ours:,.3g} against {theirs:,.3g} {unit}", [a / b for a, b in pairs])

    def add(self, name: str, bar: str, value: float, behind: str, values: list[float] | None = None) -> None:
        self.rows.append({"name": name, "bar": bar, "value": value, "behind": behind, "repeats": values or [value]})
        spread = f" [{min(values):.2f} … {max(values):.2f}]" if values else ""
        print(f"{name:66}{value:9.3f}{spread:20} bar {bar:8} {behind}", flush=True)
