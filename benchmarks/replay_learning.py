"""Part of `replay.py`: SAC learners that are fed from shards, against the same updates on batches in memory."""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from replay_material import STEPS, Table

from phaseb.config.policy import PolicyConfig, ReplayConfig
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import RunSpec
from phaseb.policy.learner import PREFETCH, SACLearner
from phaseb.replay.client import ReplayClient
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import Segments
from phaseb.replay.spec import SampleSpec


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
    memory = InMemory(remote.source(streams, config.batch_size, config.discount), PREFETCH)
    learners = [SACLearner(config, feed, specs, WorkerContext(0)) for feed in (source, memory)]
    at = [config.num_steps // 2] * 2

    def updates(k: int) -> Callable[[], float]:
        def run() -> float:
            begin = time.perf_counter()
            for _ in range(2 * PREFETCH):
                learners[k].step(at[k])
                at[k] += 1
            return 2 * PREFETCH / (time.perf_counter() - begin)

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
