"""The buffer in Ray actors: the same batches as in-process, and what happens when a shard is killed with SIGKILL."""

import os
import signal
import time

import numpy as np
import pytest
import ray

from phaseb.config.policy import ReplayConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec

SCHEMA = TransitionSchema(latent_size=3, action_size=2)
SPECS = [
    SampleSpec("real_only", 1),
    SampleSpec("trust_weighted", 1, 0.25, "weight", "sampling"),
    SampleSpec("in_loss", 2, 0.5, "weight", "loss"),
]


def episodes(num: int, name: str = "e", steps: int = 20, seed: int = 0) -> Trajectories:
    g = np.random.default_rng(seed)
    return Trajectories(
        z=g.normal(size=(num, steps + 1, 3)).astype("f4"),
        actions=g.uniform(-1, 1, (num, steps, 2)).astype("f4"),
        rewards=g.normal(size=(num, steps)).astype("f4"),
        terminals=np.zeros((num, steps), "f4"),
        lengths=np.full(num, steps),
        ids=tuple(f"{name}{i}" for i in range(num)),
        splits=("train",) * num,
        weights=g.random((num, steps)).astype("f4"),
    )


@pytest.fixture
def clients():
    """Starts clients and stops their shards."""
    started: list[ReplayClient] = []

    def start(folder=None, **settings) -> ReplayClient:
        defaults = {"capacity": 6000}
        started.append(ReplayClient.start(SCHEMA, ReplayConfig(**(defaults | settings)), folder))
        return started[-1]

    yield start
    for client in started:
        client.close()


def fill(replay):
    replay.insert(episodes(60), "real")
    replay.insert(episodes(40, "s", seed=1), "synthetic")


def kill(client: ReplayClient, shard: int) -> None:
    os.kill(client.status()[shard]["pid"], signal.SIGKILL)


def wait_for(condition, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("prefetch_depth", [0, 3])
def test_the_same_batches_as_in_this_process(clients, num_shards, prefetch_depth, monkeypatch):
    monkeypatch.setattr("phaseb.replay.remote_source.PREFETCH_DEPTH", prefetch_depth)
    local = LocalReplay(SCHEMA, ReplayConfig(capacity=6000, num_shards=num_shards))
    remote = clients(num_shards=num_shards)
    fill(local)
    fill(remote)
    assert remote.num_transitions == local.num_transitions == 2000
    one, other = (replay.source(SPECS, 32, 0.99, chunk_steps=num_shards) for replay in (local, remote))
    for step, num in ((0, 4), (4, 4), (8, 4), (2, 3)):  # the last one goes back, as after a resume
        expected, found = one.sample(step, num), other.sample(step, num)
        assert expected.keys() == found.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert other.accounting.to_json() == one.accounting.to_json()
    assert 0 < other.wait_fraction <= 1


def test_a_writer_that_repeats_itself_inserts_nothing_twice(clients):
    remote = clients(num_shards=2)
    data = episodes(30)
    assert remote.insert(data, "real").inserted == 600
    again = remote.insert(data, "real")
    assert (again.inserted, again.duplicates) == (0, 600)
    bad = episodes(3, "bad")
    bad.rewards[1, 2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        remote.insert(bad, "real")
    assert remote.num_transitions == 600


@pytest.mark.nightly
def test_a_killed_shard_comes_back_with_all_it_acknowledged_and_learners_go_on(clients, tmp_path):
    remote = clients(str(tmp_path), num_shards=2)
    fill(remote)
    source = remote.source(SPECS, 32, 0.99)
    before = source.sample(0, 4)
    killed = remote.status()[1]["pid"]
    kill(remote, 1)
    survivors = [source.sample(step, 4) for step in range(4, 40, 4)]  # never an error, never an old batch
    assert all(np.isfinite(batch["z"]).all() for batch in survivors)
    assert source.num_failures == 1
    wait_for(lambda: remote.status()[1]["pid"] != killed)
    status = remote.status()
    assert [s["lost"] for s in status] == [0, 0]
    assert sum(s["num_transitions"] for s in status) == 2000
    source.refresh()
    after = source.sample(0, 4)
    for name in set(before) - {"age"}:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_a_source_sees_what_its_own_client_inserted_at_once(clients, monkeypatch):
    monkeypatch.setattr("phaseb.replay.remote_source.REFRESH_INTERVAL_S", 3600.0)
    remote = clients(num_shards=1)
    remote.insert(episodes(10), "real")
    source = remote.source([SampleSpec("a", 0, 0.5, "weight", "sampling", when_short="real")], 32, 0.99)
    assert not source.sample(0, 2)["is_synthetic"].any()
    synthetic = episodes(10, "s")
    remote.insert(synthetic, "synthetic")
    np.testing.assert_array_equal(source.sample(2, 2)["is_synthetic"].sum(-1), 16)
    assert remote.set_weights("weight", synthetic, "synthetic", np.zeros((10, 20), np.float32)) == 200
    assert not source.sample(4, 2)["is_synthetic"].any()


def test_writers_on_the_cluster_insert_overlapping_parts_once(clients):
    remote = clients(num_shards=2)
    parts = [episodes(20), episodes(30), episodes(20, "s")]  # the second holds the ids of the first again
    write = ray.remote(num_cpus=0.5)(lambda client, part, source: client.insert(part, source).inserted)
    sources = ("real", "real", "synthetic")
    done = ray.get([write.remote(remote, part, source) for part, source in zip(parts, sources, strict=True)])
    assert sum(done) == remote.num_transitions == 30 * 20 + 20 * 20
    assert sum(status["num_real"] for status in remote.status()) == 600


def test_a_look_from_before_an_insert_changes_no_batch_after_it(clients, monkeypatch):
    monkeypatch.setattr("phaseb.replay.remote_source.REFRESH_INTERVAL_S", 1e-4)
    remote = clients(None, num_shards=2)
    remote.insert(episodes(4, "first"), "real")
    source = remote.source([SampleSpec("a", 3)], 16, 0.99)
    for step in range(0, 60, 3):
        source.sample(step, 1)  # leaves a look at the shards in flight
        remote.insert(episodes(4, f"later{step}"), "real")
        seen = [source.sample(step + k, 1) for k in (1, 2)]
        fresh = remote.source([SampleSpec("a", 3)], 16, 0.99)
        for k, batch in enumerate(seen):
            np.testing.assert_array_equal(batch["z"], fresh.sample(step + 1 + k, 1)["z"])
