"""What is written down comes back, damage is told, and storage that fails changes nothing."""

import numpy as np
import pytest

from phaseb.config.policy import ReplayConfig
from phaseb.errors import DataError, PhasebError
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import episode_codes, from_trajectories
from phaseb.replay.shard import DurablePartition
from phaseb.runtime.storage import Store

SCHEMA = TransitionSchema(latent_size=3, action_size=2)
CONFIG = ReplayConfig(capacity=300)


@pytest.fixture
def parts(make_trajectories):
    return [from_trajectories(make_trajectories([9] * 5, name=f"{k}-"), SCHEMA, "real") for k in range(8)]


def held(partition: DurablePartition) -> np.ndarray:
    ring = partition.partition.strata[0].ring
    slots = ring.queue.at(np.arange(len(ring.queue)))
    return np.concatenate([ring.rows[slots], ring.rows[slots + 1]], axis=1)


def test_all_that_was_acknowledged_comes_back(tmp_path, parts, make_trajectories):
    shard = DurablePartition(SCHEMA, CONFIG, Store.at(tmp_path))
    for k, part in enumerate(parts):
        shard.insert(part)
        if k in (2, 5):
            shard.snapshot()
    codes = episode_codes(make_trajectories([9] * 5, name="7-"), "real")
    shard.set_weights("weight", codes, np.full(5, 4), np.arange(5, dtype=np.float32))
    again = DurablePartition(SCHEMA, CONFIG, Store.at(tmp_path))
    np.testing.assert_array_equal(held(again), held(shard))
    assert again.status() == shard.status() | {"fill": again.status()["fill"], "evicted": again.counters["evicted"]}
    assert again.insert(parts[7]).done.duplicates == 45


def test_old_files_go(tmp_path, parts):
    shard = DurablePartition(SCHEMA, CONFIG, Store.at(tmp_path))
    for part in parts:
        shard.insert(part)
        shard.snapshot()
    assert len(list((tmp_path / "snapshots").iterdir())) == 2
    assert len(list((tmp_path / "journal").iterdir())) == 1  # the one since the older snapshot


@pytest.mark.parametrize("damage", ["truncate", "alter", "manifest"])
def test_an_older_snapshot_stands_in_for_a_damaged_one(tmp_path, parts, damage):
    shard = DurablePartition(SCHEMA, CONFIG, Store.at(tmp_path))
    for part in parts:
        shard.insert(part)
        shard.snapshot()
    newest = max((tmp_path / "snapshots").iterdir())
    file = newest / ("manifest.json" if damage == "manifest" else "part-0000.bin")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data[:-7] if damage == "truncate" else data)
    again = DurablePartition(SCHEMA, CONFIG, Store.at(tmp_path))
    assert "truncated or was altered" in again.status()["damaged"][0]
    np.testing.assert_array_equal(held(again), held(shard))


def test_a_damaged_entry_is_told_and_the_others_come_back(tmp_path, parts):
    shard = DurablePartition(SCHEMA, CONFIG, Store.at(tmp_path))
    for part in parts[:3]:
        shard.insert(part)
    (tmp_path / "journal" / f"{2:012d}.bin").write_bytes(b"")
    again = DurablePartition(SCHEMA, CONFIG, Store.at(tmp_path))
    assert len(again.status()["damaged"]) == 1
    assert again.status()["num_transitions"] == 90


def test_files_of_another_schema_are_refused(tmp_path, parts):
    shard = DurablePartition(SCHEMA, CONFIG, Store.at(tmp_path))
    shard.insert(parts[0])
    other = TransitionSchema(latent_size=3, action_size=2, weights=("weight", "more"))
    with pytest.raises(DataError, match="weights"):
        DurablePartition(other, CONFIG, Store.at(tmp_path))
    shard.snapshot()
    with pytest.raises(DataError, match="weights"):
        DurablePartition(other, CONFIG, Store.at(tmp_path))


def test_an_insert_that_cannot_be_written_down_does_not_happen(tmp_path, parts, monkeypatch):
    shard = DurablePartition(SCHEMA, CONFIG, Store.at(tmp_path))
    shard.insert(parts[0])

    def full(self, data, *names):
        raise PhasebError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_bytes", full)
        with pytest.raises(PhasebError, match="full"):
            shard.insert(parts[1])
    assert shard.status()["num_transitions"] == 45
    assert shard.insert(parts[1]).done.inserted == 45


def test_a_snapshot_that_cannot_be_written_leaves_the_old_one(tmp_path, parts, monkeypatch):
    shard = DurablePartition(SCHEMA, CONFIG, Store.at(tmp_path))
    shard.insert(parts[0])
    shard.snapshot()
    shard.insert(parts[1])

    def full(self, value, *names):
        raise PhasebError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_json", full)
        with pytest.raises(PhasebError, match="full"):
            shard.snapshot()
    again = DurablePartition(SCHEMA, CONFIG, Store.at(tmp_path))
    assert (again.status()["num_transitions"], again.status()["damaged"]) == (90, [])


def test_the_clock_tells_storage_that_fails_and_goes_on(tmp_path, parts, monkeypatch):
    monkeypatch.setattr("phaseb.replay.shard.SNAPSHOT_INTERVAL_S", 1e-9)
    shard = DurablePartition(SCHEMA, CONFIG, Store.at(tmp_path))
    shard.snapshot_if_due()
    assert not (tmp_path / "snapshots").exists()  # nothing to write yet
    shard.insert(parts[0])
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_json", lambda self, value, *names: (_ for _ in ()).throw(PhasebError("full")))
        shard.snapshot_if_due()
    assert shard.status()["damaged"] == ["no snapshot: full"]
    shard.snapshot_if_due()
    assert len(list((tmp_path / "snapshots").glob("*/manifest.json"))) == 1
