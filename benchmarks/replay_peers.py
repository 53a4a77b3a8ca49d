"""What `replay.py` is measured against, in the peers' own environment: `replay.py --peers PYTHON` starts this.

    python -m venv PEERS
    PEERS/bin/pip install cpprb==11.0.0 torchrl==0.14.1 tensordict==0.14.3 "ray[default]==2.60.0"

Reads `name` a line on standard input, samples for a moment, answers transitions a second on standard output.
"""

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial

import numpy as np

LATENT, ACTION, BATCH, BATCHES = 64, 8, 256, 64
CHUNK = 50_000


def main() -> None:
    size, seconds = int(sys.argv[2]), float(sys.argv[3])
    replies, sys.stdout = sys.stdout, sys.stderr
    calls = {"cpprb": prioritized, "torchrl": ray_buffer}[sys.argv[1]](size)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        call, num = calls[line.strip()]
        call()
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            call()
            count += num
        print(count / (time.perf_counter() - begin), file=replies, flush=True)


def prioritized(size: int) -> dict[str, tuple[Callable[[], object], int]]:
    from cpprb import PrioritizedReplayBuffer

    shapes = {"obs": LATENT, "act": ACTION, "rew": 1, "next_obs": LATENT, "done": 1}
    buffer = PrioritizedReplayBuffer(size, {name: {"shape": width} for name, width in shapes.items()})
    g = np.random.default_rng(0)
    for _ in range(0, size, CHUNK):
        rows = {name: g.random((CHUNK, width), dtype=np.float32) for name, width in shapes.items()}
        buffer.add(**rows, priorities=g.random(CHUNK))
    return {
        "minibatch": (lambda: buffer.sample(BATCH), BATCH),
        "large": (lambda: buffer.sample(BATCH * BATCHES), BATCH * BATCHES),
    }


def ray_buffer(size: int) -> dict[str, tuple[Callable[[], object], int]]:
    import ray
    import torch
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, RayReplayBuffer

    torch.set_num_threads(1)
    os.environ["RAY_AUTH_TOKEN"] = uuid.uuid4().hex
    start = {
        "address": "local",
        "num_cpus": 2,
        "include_dashboard": False,
        "log_to_driver": False,
        "object_store_memory": 400 * 2**20,
    }
    ray.init(**start)
    with contextlib.redirect_stdout(sys.stderr):
        buffer = RayReplayBuffer(
            storage=partial(LazyTensorStorage, size),
            ray_init_config=start,
            remote_config={"num_cpus": 1},
            batch_size=BATCH,
        )
    for _ in range(0, size, CHUNK):
        rows = {
            name: torch.rand(CHUNK, width)
            for name, width in (("observation", LATENT), ("action", ACTION), ("next_observation", LATENT))
        }
        rows |= {"reward": torch.rand(CHUNK), "done": torch.zeros(CHUNK, dtype=torch.bool)}
        buffer.extend(TensorDict(rows, batch_size=[CHUNK]))
    return {
        "minibatch": (lambda: buffer.sample(BATCH), BATCH),
        "large": (lambda: buffer.sample(BATCH * BATCHES), BATCH * BATCHES),
    }


if __name__ == "__main__":
    main()
