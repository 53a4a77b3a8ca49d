"""The buffer in Ray actors: the same batches as in-process, and what happens when a shard is killed with SIGKILL."""

import dataclasses
import os
import signal
import threading
import time

import numpy as np
import pytest
import ray

from phaseb.config.replay import ReplayConfig
from phaseb.episodes.pipeline import dataset
from phaseb.episodes.shards import write_trajectories
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.replay.writers import Inserter
from phaseb.runtime.storage import Store

SCHEMA = TransitionSchema(latent_size=3, action_size=2)
SPECS = [
    SampleSpec("real_only", 1),
    SampleSpec("trust_weighted", 1, 0.25, "weight", "sampling"),
    SampleSpec("in_loss", 2, 0.5, "weight", "loss"),
]


def episodes(num: int, name: str = "e", steps: int = 20, seed: int = 0) -> Trajectories:
    g = np.random.default_rng(seed)
    return Trajectories(
        z=g.normal(size=(num, steps + 1, 3)).astype("f4"), actions=g.uniform(-1, 1, (num, steps, 2)).astype("f4"),
        rewards=g.normal(size=(num, steps)).astype("f4"), terminals=np.zeros((num, steps), "f4"),
        lengths=np.full(num, steps), ids=tuple(f"{name}{i}" for i in range(num)), splits=("train",) * num,
        weights=g.random((num, steps)).astype("f4"),
    )  # fmt: skip


@pytest.fixture
def clients():
    """Starts clients and stops their shards."""
    started: list[ReplayClient] = []

    def start(folder=None, **settings) -> ReplayClient:
        defaults = {"capacity": 6000, "retry_interval_s": 0.1, "call_timeout_s": 120.0}
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
def test_the_same_batches_as_in_this_process(clients, num_shards, prefetch_depth):
    local = LocalReplay(SCHEMA, ReplayConfig(capacity=6000, num_shards=num_shards))
    remote = clients(num_shards=num_shards, prefetch_depth=prefetch_depth)
    fill(local)
    fill(remote)
    assert remote.num_transitions == local.num_transitions == 2000
    one, other = local.source(SPECS, 32, 0.99), remote.source(SPECS, 32, 0.99)
    for step, num in ((0, 4), (4, 4), (8, 4), (2, 3)):  # the last one goes back, as after a resume
        expected, found = one.sample(step, num), other.sample(step, num)
        assert expected.keys() == found.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert other.accounting.to_json() == one.accounting.to_json()
    assert 0 < other.wait_share <= 1


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
    remote = clients(str(tmp_path), num_shards=2, prefetch_depth=2)
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


@pytest.mark.nightly
def test_without_a_journal_what_came_after_the_snapshot_is_lost_and_told(clients, tmp_path):
    remote = clients(str(tmp_path), num_shards=1, journal=False, snapshot_interval_s=3600)
    remote.insert(episodes(10), "real")
    remote.snapshot()
    remote.insert(episodes(5, "later"), "real")
    kill(remote, 0)
    wait_for(lambda: remote.status()[0]["lost"] == 100)
    assert remote.status()[0]["num_transitions"] == 200
    assert remote.insert(episodes(5, "later"), "real").inserted == 100  # the writer can send it again


def test_snapshots_are_taken_by_the_clock(clients, tmp_path):
    remote = clients(str(tmp_path), num_shards=1, journal=False, snapshot_interval_s=0.2)
    remote.insert(episodes(10), "real")
    wait_for(lambda: list(tmp_path.glob("shard-000/snapshots/*/manifest.json")))
    kill(remote, 0)
    wait_for(lambda: remote.status()[0]["num_transitions"] == 200)


def test_more_shards_and_fewer_hold_the_same(clients, tmp_path):
    remote = clients(str(tmp_path / "a"), num_shards=2)
    fill(remote)
    fewer = remote.resize(1, str(tmp_path / "b"))
    more = fewer.resize(3, str(tmp_path / "c"))
    assert more.num_transitions == 2000
    assert len({s["num_transitions"] for s in more.status()}) > 1
    batch = more.source([SampleSpec("a", 3)], 64, 0.99).sample(0, 200)
    assert len(np.unique(batch["reward"])) == 1200  # every real transition turns up
    more.close()


def test_the_limiter_holds_sampling_back_until_there_is_news(clients):
    remote = clients(num_shards=1, samples_per_insert=1.0, limiter_tolerance=100, prefetch_depth=0)
    remote.insert(episodes(10), "real")
    source = remote.source([SampleSpec("a", 0)], 50, 0.99)
    for step in range(6):  # 200 inserted + 100 of tolerance = 6 batches of 50
        source.sample(step, 1)
    late = threading.Timer(0.5, lambda: remote.insert(episodes(5, "late"), "real"))
    late.start()
    begin = time.monotonic()
    source.sample(6, 1)
    assert time.monotonic() - begin > 0.4
    late.join()


def test_a_source_sees_what_its_own_client_inserted_at_once(clients):
    remote = clients(num_shards=1, refresh_interval_s=3600, prefetch_depth=2)
    remote.insert(episodes(10), "real")
    source = remote.source([SampleSpec("a", 0, 0.5, "weight", "sampling", when_short="real")], 32, 0.99)
    assert not source.sample(0, 2)["is_synthetic"].any()
    synthetic = episodes(10, "s")
    remote.insert(synthetic, "synthetic")
    np.testing.assert_array_equal(source.sample(2, 2)["is_synthetic"].sum(-1), 16)
    assert remote.set_weights("weight", synthetic, "synthetic", np.zeros((10, 20), np.float32)) == 200
    assert not source.sample(4, 2)["is_synthetic"].any()


def test_storage_of_three_shards_is_restored_into_two(clients, tmp_path):
    local = LocalReplay(SCHEMA, ReplayConfig(capacity=6000, num_shards=3))
    fill(local)
    local.save(Store.at(tmp_path / "old"))
    remote = clients(str(tmp_path / "new"), num_shards=2)
    remote.restore(str(tmp_path / "old"))
    assert remote.num_transitions == 2000
    part = next((tmp_path / "old").glob("shard-002/snapshots/*/part-0000.bin"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DataError, match="nothing was restored"):
        remote.restore(str(tmp_path / "old"))
    assert remote.num_transitions == 2000


def test_sequences_come_over_the_wire(clients):
    remote, local = clients(num_shards=2), LocalReplay(SCHEMA, ReplayConfig(capacity=6000, num_shards=2))
    fill(remote)
    fill(local)
    specs = [SampleSpec("a", 0, 0.25, "weight", "sampling", length=5)]
    expected, found = (r.source(specs, 32, 0.99).sample(0, 3) for r in (local, remote))
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_priorities_that_a_learner_sends_back_change_what_it_draws(clients):
    remote = clients(num_shards=2, priority_exponent=1.0, refresh_interval_s=0.01, prefetch_depth=0)
    fill(remote)
    source = remote.source([SampleSpec("p", 0, weighting="priority")], 64, 0.99)
    for step in range(60):
        batch = source.sample(step, 1)
        wanted = (batch["reward"] > 1.5).astype(np.float32) + 1e-6
        source.set_priorities(batch["shard"].ravel(), batch["number"].ravel(), wanted.ravel())
    source.refresh()
    assert (source.sample(60, 4)["reward"] > 1.5).mean() > 3 * (episodes(60).rewards > 1.5).mean()


def test_writers_on_the_cluster_insert_overlapping_parts_once(clients):
    remote = clients(num_shards=2)
    parts = [episodes(20), episodes(30), episodes(20, "s")]  # the second holds the ids of the first again
    write = ray.remote(num_cpus=0.5)(lambda client, part, source: client.insert(part, source).inserted)
    sources = ("real", "real", "synthetic")
    done = ray.get([write.remote(remote, part, source) for part, source in zip(parts, sources, strict=True)])
    assert sum(done) == remote.num_transitions == 30 * 20 + 20 * 20
    assert sum(status["num_real"] for status in remote.status()) == 600


def test_a_ray_data_pipeline_writes_in_bulk_and_once(clients, tmp_path):
    remote, alone = clients(num_shards=2), LocalReplay(SCHEMA, ReplayConfig(capacity=6000, num_shards=2))
    made = dataclasses.replace(episodes(30, "s"), lineage={"model": ("m",) * 30})
    write_trajectories(Store.at(tmp_path), made, rows_per_shard=8)
    alone.insert(made, "synthetic")
    insert = Inserter(remote, "synthetic")
    for inserted in (600, 0):
        counts = dataset(Store.at(tmp_path)).map_batches(insert, batch_size=8, batch_format="numpy", num_cpus=0.5)
        assert counts.sum("inserted") == inserted
    specs = [SampleSpec("a", 0, 1.0)]  # all alike, so that every transition turns up
    reward, expected = (np.unique(r.source(specs, 64, 0.9).sample(0, 200)["reward"]) for r in (remote, alone))
    np.testing.assert_array_equal(reward, expected)


def test_a_look_from_before_an_insert_changes_no_batch_after_it(clients):
    remote = clients(None, num_shards=2, refresh_interval_s=1e-4)
    remote.insert(episodes(4, "first"), "real")
    source = remote.source([SampleSpec("a", 3)], 16, 0.99)
    for step in range(0, 60, 3):
        source.sample(step, 1)  # leaves a look at the shards in flight
        remote.insert(episodes(4, f"later{step}"), "real")
        seen = [source.sample(step + k, 1) for k in (1, 2)]
        fresh = remote.source([SampleSpec("a", 3)], 16, 0.99)
        for k, batch in enumerate(seen):
            np.testing.assert_array_equal(batch["z"], fresh.sample(step + 1 + k, 1)["z"])
