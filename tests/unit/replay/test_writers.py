"""Writers from files and from the batches of a pipeline put in what `insert` would, once."""

import numpy as np
import pytest

from phaseb.config.replay import ReplayConfig
from phaseb.episodes.shards import write_trajectories
from phaseb.errors import DataError
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.writers import Inserter, insert_shards, to_trajectories
from phaseb.runtime.storage import Store

SCHEMA = TransitionSchema(latent_size=3, action_size=2, weights=("weight", "bounds"))


@pytest.fixture
def rollouts(make_trajectories):
    g = np.random.default_rng(0)
    lengths = [9, 4, 6, 9, 1, 7, 5]
    mask = np.arange(9) < np.array(lengths)[:, None]
    scored = {name: g.random((7, 9)).astype("f4") * mask for name in ("weights", "trust")}
    return make_trajectories(lengths, name="s", lineage={"model": ("m",) * 7}, **scored)


def rows(trajectories, at):
    """As Ray Data hands them to a function: ragged columns are arrays of arrays."""
    ragged = {name: np.empty(len(at), dtype=object) for name in ("z", "actions", "rewards", "trust", "weights")}
    for k, i in enumerate(at):
        for name, column in ragged.items():
            column[k] = getattr(trajectories, name)[i, : trajectories.lengths[i] + (name == "z")]
    lineage = np.empty(len(at), dtype=object)
    lineage[:] = [[("model", "m")] for _ in at]
    return {"id": np.array(trajectories.ids)[at], "lineage": lineage, **ragged}


def held(replay):
    exported = replay.partitions[0].export()
    order = np.argsort(exported.codes, kind="stable")
    return exported.select(order).rows, exported.codes[order]


def test_batches_of_a_pipeline_and_inserts_are_the_same(rollouts):
    plain, piped = (LocalReplay(SCHEMA, ReplayConfig(capacity=500)) for _ in range(2))
    plain.insert(rollouts, "synthetic", {"bounds": np.arange(7) % 2})
    insert = Inserter(piped, "synthetic", ["bounds"])
    for at in ([0, 1, 2], [3, 4, 5, 6], [2, 3]):  # the last one is a task that was tried again
        done = insert(rows(rollouts, at) | {"bounds": np.array(at) % 2})
    assert {name: count.tolist() for name, count in done.items()} == {
        "inserted": [0], "duplicates": [15], "evicted": [0],
    }  # fmt: skip
    for found, wanted in zip(held(piped), held(plain), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_files_are_inserted_one_after_the_other(rollouts, tmp_path):
    plain, read = (LocalReplay(SCHEMA, ReplayConfig(capacity=500)) for _ in range(2))
    plain.insert(rollouts, "synthetic")
    store = Store.at(tmp_path)
    write_trajectories(store, rollouts, rows_per_shard=3)
    assert insert_shards(read, store, "synthetic").inserted == 41
    assert insert_shards(read, store, "synthetic", ["train"]).duplicates == 41
    assert insert_shards(read, store, "synthetic", ["dev"]).duplicates == 0
    for found, wanted in zip(held(read), held(plain), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_what_is_no_trajectory_is_told(rollouts, tmp_path):
    batch = rows(rollouts, [0, 1])
    with pytest.raises(DataError, match="no column 'actions'"):
        to_trajectories({name: column for name, column in batch.items() if name != "actions"})
    batch["z"][1] = batch["z"][1][:-1]
    with pytest.raises(DataError, match="episode s1: 'z' has 4 steps, wanted 5"):
        to_trajectories(batch)
    with pytest.raises(DataError, match="no column 'bounds'"):
        Inserter(LocalReplay(SCHEMA, ReplayConfig(capacity=500)), "synthetic", ["bounds"])(rows(rollouts, [0]))
