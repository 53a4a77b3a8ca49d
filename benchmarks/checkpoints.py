"""What checkpoints cost trainings, as a share of their steps.

    python benchmarks/checkpoints.py

Trains the world model and the policies of the default config for a few seconds each, in this process, writing to a
temporary folder. Prints a table and one JSON line.
"""

import json
import os
import tempfile
import time
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from phaseb.config.load import load_config
from phaseb.config.run import TrainingConfig
from phaseb.dynamics.gru_ensemble import learner as world_model
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy import learner as policy
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.runtime.checkpoint import write_checkpoint
from phaseb.runtime.storage import Store
from phaseb.stages.replay_streams import runs_of, streams_of
from phaseb.training import async_checkpointer, loop

TRAIN_S = 12.0


def measure() -> dict[str, Any]:
    """What checkpoints cost the trainings of the default config, written every second, and so at the default interval.

    A step waits for a copy in memory; the writing beside it takes a processor's time, counted here in full, as where
    no core is free for it.
    """
    every_s = TrainingConfig().checkpoint_every_s
    found: dict[str, Any] = {}
    for name, make in (("world_model", _world_model), ("policy", _policy)):
        blocked_s, written_s, count, megabytes, step_s = _checkpointed(make())
        found |= {
            f"{name}_mb": megabytes,
            f"{name}_step_ms": 1e3 * step_s,
            f"{name}_checkpoints": count,
            f"{name}_blocked_ms": 1e3 * blocked_s / count,
            f"{name}_writing_cpu_ms": 1e3 * written_s / count,
            f"{name}_share": (blocked_s + written_s) / count / every_s,
        }
    return found | {"every_s": every_s}


def _checkpointed(learner: Any) -> tuple[float, float, int, float, float]:
    """Train for a while: seconds that steps waited, processor seconds of writing, checkpoints, MB each, s a step."""
    kept: list[async_checkpointer.AsyncCheckpointer] = []
    written: list[tuple[float, int]] = []
    write = write_checkpoint

    class Watched(async_checkpointer.AsyncCheckpointer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            kept.append(self)

    def timed(store: Store, blob: bytes, meta: Any) -> str:
        begin = time.thread_time()
        digest = write(store, blob, meta)
        written.append((time.thread_time() - begin, len(blob)))
        return digest

    begin = time.monotonic()
    for step in range(5):
        learner.step(step)
    learner.num_steps = 5 + int(TRAIN_S / (time.monotonic() - begin) * 5)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(loop, "AsyncCheckpointer", Watched),
        patch.object(async_checkpointer, "write_checkpoint", timed),
    ):
        config = TrainingConfig(checkpoint_every_s=1.0, validate_every=10**9)
        done = loop.train(learner, WorkerContext(0), config, Store.at(folder), "k", lambda metrics: None)
    seconds = sum(s for s, _ in written)
    return kept[0].blocked_s, seconds, len(written), written[0][1] / 1e6, done.seconds / learner.num_steps


def _trajectories() -> Any:
    """Episodes of the default sizes: 50 of 120 steps."""
    rng, shape, dims = np.random.default_rng(0), (50, 120), load_config().latents.num_dims
    z = rng.normal(size=(shape[0], shape[1] + 1, dims)).cumsum(1).astype(np.float32) / 10
    actions = rng.uniform(-1, 1, (*shape, 2)).astype(np.float32)
    return Trajectories(
        z,
        actions,
        z[:, 1:, 0],
        np.zeros(shape, np.float32),
        np.full(50, shape[1]),
        tuple(f"e{i}" for i in range(50)),
        ("train",) * 50,
    )


def _world_model() -> Any:
    return world_model.make_learner(load_config().dynamics.gru, _trajectories(), WorkerContext(0))


def _policy() -> Any:
    config, data = load_config(), _trajectories()
    alone = load_config(None, ["arms.names=[real_only]"])
    arms = runs_of(alone)
    streams = streams_of(alone, arms)
    replay = LocalReplay(TransitionSchema(data.z.shape[-1], 2), config.replay)
    replay.insert(data, "real")
    source = replay.source(streams, config.policy.batch_size, 0.99)
    return policy.SACLearner(config.policy, source, arms, WorkerContext(0))


if __name__ == "__main__":
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    numbers = measure()
    for name, value in numbers.items():
        print(f"{name:<28} {value:.4g}")
    print(json.dumps(numbers | {"load_before": load}))
