"""SAC learners on Ray Train's workers, fed from replay shards: one, two or a killed one make the same updates."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from phaseb.config.replay import ReplayConfig
from phaseb.config.resources import ResourcesConfig
from phaseb.config.run import TrainingConfig
from phaseb.policy.batches import RunSpec
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.runs.policy import PolicyData
from phaseb.storage import Store
from phaseb.training.fit import fit
from phaseb.training.loop import read_progress

sys.path.insert(0, str(Path(__file__).parent))
os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])  # workers import it too

from slow_learner import BATCH, STEPS, SlowLearner
from test_replay import episodes

TRAINING = TrainingConfig(checkpoint_every_s=1e-6, validate_every=12, log_every=12)
RUNS = (RunSpec("real_only", 0), RunSpec("trust_weighted", 0))
STREAMS = (SampleSpec("real_only/0", 1), SampleSpec("trust_weighted/0", 1, 0.5, "weight", "sampling"))


def trained(store: Store, replay, workers: int, sleep_s: float = 0.0):
    replay.insert(episodes(60), "real")
    replay.insert(episodes(40, "s", seed=1), "synthetic")
    data = PolicyData(replay, RUNS, STREAMS, episodes(60), episodes(8, "dev", seed=2), store, None)
    return fit(
        SlowLearner(sleep_s), data, seed=0, key="k", store=store, training=TRAINING,
        resources=ResourcesConfig(num_workers=workers, cpus_per_worker=0.5), name="policy",
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """In this process, without Ray."""
    replay = LocalReplay(TransitionSchema(3, 2), ReplayConfig(capacity=6000, num_shards=2))
    return trained(Store.at(tmp_path_factory.mktemp("alone")), replay, 0)


@pytest.fixture
def remote():
    replay = ReplayClient.start(TransitionSchema(3, 2), ReplayConfig(capacity=6000, num_shards=2))
    yield replay
    replay.close()


def tensors(state, prefix=""):
    """All tensors of a nested state, by name."""
    for name, value in state.items():
        if isinstance(value, dict):
            yield from tensors(value, f"{prefix}{name}.")
        elif isinstance(value, torch.Tensor):
            yield prefix + name, value


def test_a_learner_killed_between_calls_ends_as_if_it_had_not_been_books_and_all(remote, alone, tmp_path):
    store, killed = Store.at(tmp_path), []

    def kill_once() -> None:
        deadline = time.monotonic() + 300
        while not killed and time.monotonic() < deadline:
            done = read_progress(store, "k")
            if done is not None and done[1].next_step >= 3:
                mine = psutil.Process().children(recursive=True)
                workers = [p for p in mine if "RayTrainWorker" in " ".join(p.cmdline())]
                if workers:
                    os.kill(workers[0].pid, signal.SIGKILL)
                    killed.append(done[1].next_step)
            time.sleep(0.02)

    watcher = threading.Thread(target=kill_once, daemon=True)
    watcher.start()
    result = trained(store, remote, 1, sleep_s=0.1)
    watcher.join()
    assert killed
    assert killed[0] < STEPS
    expected = dict(tensors(alone.state))
    found = dict(tensors(result.state))
    assert found.keys() == expected.keys()
    assert "books" in found
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name
    assert found["books"][..., 0].sum() == len(RUNS) * STEPS * BATCH  # every batch counts once


def test_two_learners_make_the_updates_of_one_on_its_batches(remote, alone, tmp_path):
    result = trained(Store.at(tmp_path), remote, 2)
    expected = dict(tensors(alone.state))
    for name, value in tensors(result.state):
        np.testing.assert_allclose(value.numpy(), expected[name].numpy(), rtol=2e-3, atol=2e-4, err_msg=name)
    np.testing.assert_allclose(result.state["books"].numpy(), expected["books"].numpy(), rtol=1e-9)
