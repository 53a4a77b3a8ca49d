"""SAC learners on Ray Train's workers, fed from replay shards: one, two or a killed one make the same updates."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import descendants

from phaseb.config.policy import ReplayConfig
from phaseb.config.run import ResourcesConfig, TrainingConfig
from phaseb.policy.batches import RunSpec
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.storage import Store
from phaseb.stages.policy import PolicyData
from phaseb.training.fit import fit
from phaseb.training.loop import read_progress

sys.path.insert(0, str(Path(__file__).parent))
os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])  # workers import it too

from slow_learner import BATCH, STEPS, SlowLearner
from test_replay import episodes

pytestmark = pytest.mark.nightly

TRAINING = TrainingConfig(checkpoint_every_s=1e-6, validate_every=12, log_every=12)
RUNS = (RunSpec("real_only", 0), RunSpec("trust_weighted", 0))
STREAMS = (SampleSpec("real_only/0", 1), SampleSpec("trust_weighted/0", 1, 0.5, "weight", "sampling"))


def trained(store: Store, replay, workers: int, sleep_s: float = 0.0):
    replay.insert(episodes(60), "real")
    replay.insert(episodes(40, "s", seed=1), "synthetic")
    resources = ResourcesConfig(num_workers=workers, cpus_per_worker=0.5)
    data = PolicyData(replay, RUNS, STREAMS, episodes(60), episodes(8, "dev", seed=2), store, None)
    return fit(
        SlowLearner(sleep_s),
        data,
        seed=0,
        key="k",
        store=store,
        training=TRAINING,
        resources=resources,
        name="policy",
    )


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


def kill_once(store: Store, name: str, killed: list[int]) -> threading.Thread:
    """Kill a process of that name, from outside, once the training has come some way."""

    def watch() -> None:
        deadline = time.monotonic() + 300
        while not killed and time.monotonic() < deadline:
            done = read_progress(store, "k")
            if done is not None and done[1].next_step >= 3:
                found = descendants(name)
                if found:
                    os.kill(min(found), signal.SIGKILL)
                    killed.append(done[1].next_step)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    return watcher


def same(found, alone) -> None:
    """Two states are one but for rounding, and every batch counts once in the books."""
    expected, found = dict(tensors(alone)), dict(tensors(found))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6, msg=lambda told, n=name: f"{n}: {told}")
    assert found["books"][..., 0].sum() == len(RUNS) * STEPS * BATCH


def test_a_learner_killed_between_calls_ends_as_if_it_had_not_been_books_and_all(remote, alone, tmp_path):
    store, killed = Store.at(tmp_path), []
    watcher = kill_once(store, "RayTrainWorker", killed)
    result = trained(store, remote, 1, sleep_s=0.1)
    watcher.join()
    assert killed
    assert killed[0] < STEPS
    same(result.state, alone.state)


def test_two_learners_make_the_updates_of_one_on_its_batches(remote, alone, tmp_path):
    result = trained(Store.at(tmp_path), remote, 2)
    expected = dict(tensors(alone.state))
    for name, value in tensors(result.state):
        np.testing.assert_allclose(value.numpy(), expected[name].numpy(), rtol=2e-3, atol=2e-4, err_msg=name)
    np.testing.assert_allclose(result.state["books"].numpy(), expected["books"].numpy(), rtol=1e-9)
