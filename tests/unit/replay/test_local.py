"""The buffer as a learner sees it, without Ray."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from phaseb.config.policy import ReplayConfig
from phaseb.errors import DataError
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import from_trajectories, join
from phaseb.replay.spec import SampleSpec

SCHEMA = TransitionSchema(latent_size=3, action_size=2, weights=("weight", "in_bounds"))


def filled(make, num_shards=1, weights=None, in_bounds=None, **settings) -> LocalReplay:
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=5000, num_shards=num_shards, **settings))
    replay.insert(make([20] * 30), "real")
    weights = np.ones((20, 20), np.float32) if weights is None else weights
    columns = {"in_bounds": np.ones(20, bool) if in_bounds is None else in_bounds}
    replay.insert(make([20] * 20, name="s", weights=weights), "synthetic", columns)
    return replay


def test_transitions_are_those_of_the_episodes(make_trajectories):
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=500))
    trajectories = make_trajectories([4, 1, 7])
    trajectories.terminals[1, 0] = 1
    replay.insert(trajectories, "real")
    batch = replay.source([SampleSpec("a", 0)], 12, gamma=0.9).sample(0, 50)
    episode, step = batch["z"][..., 0], batch["z"][..., 1]
    np.testing.assert_array_equal(batch["next_z"][..., 0], episode)
    np.testing.assert_array_equal(batch["next_z"][..., 1], step + 1)
    np.testing.assert_array_equal(batch["reward"], 100 * episode + step)
    np.testing.assert_array_equal(batch["action"][..., 1], 100 * episode + step)
    np.testing.assert_allclose(batch["discount"], np.where(episode == 1, 0.0, 0.9), rtol=1e-6)
    np.testing.assert_array_equal(batch["cut"], (episode != 1) & (step + 1 == np.array([4, 1, 7])[episode.astype(int)]))
    assert len(np.unique(batch["reward"])) == 12  # every transition of the three episodes turns up


@pytest.mark.parametrize("num_shards", [1, 3])
def test_the_same_batches_however_the_calls_are_cut(make_trajectories, num_shards):
    replay = filled(make_trajectories, num_shards, weights=np.random.default_rng(0).random((20, 20)).astype("f4"))
    specs = [SampleSpec("r", 1), SampleSpec("t", 1, 0.3, "weight", "sampling")]
    specs.append(SampleSpec("l", 2, 0.5, "weight", "loss"))
    whole = replay.source(specs, 32, 0.99).sample(5, 6)
    again = replay.source(specs, 32, 0.99)
    first, second = again.sample(5, 2), again.sample(7, 4)
    for name, array in whole.items():
        np.testing.assert_array_equal(array, np.concatenate([first[name], second[name]]), err_msg=name)


@pytest.mark.parametrize("num_shards", [1, 3])
def test_workers_take_parts_of_the_same_batch(make_trajectories, num_shards):
    replay = filled(make_trajectories, num_shards)
    specs = [SampleSpec("r", 1), SampleSpec("t", 1, 0.3, "weight", "loss")]
    whole = replay.source(specs, 32, 0.99).sample(3, 4)
    parts = [replay.source(specs, 32, 0.99, rank=rank, world_size=2).sample(3, 4) for rank in range(2)]
    for name, array in whole.items():
        np.testing.assert_array_equal(array, np.concatenate([p[name] for p in parts], axis=2), err_msg=name)


@pytest.mark.parametrize("num_shards", [1, 4])
@pytest.mark.parametrize(
    "spec",
    [
        SampleSpec("share 0", 7, 0.0, "weight", "sampling", when_short="real"),
        SampleSpec("no weight, sampling", 7, 0.5, "weight", "sampling", when_short="real"),
        SampleSpec("no weight, loss", 7, 0.5, "weight", "loss", when_short="real"),
        SampleSpec("nothing in bounds", 7, 0.5, "in_bounds", "sampling", when_short="real"),
        SampleSpec("nothing trusted", 7, 0.5, "weight", "uniform", share_follows_weight=True),
    ],
    ids=lambda s: s.name,
)
def test_synthetic_data_that_nothing_trusts_leaves_the_real_batches_bit_for_bit(make_trajectories, num_shards, spec):
    replay = filled(make_trajectories, num_shards, np.zeros((20, 20), np.float32), np.zeros(20, bool))
    alone = LocalReplay(SCHEMA, ReplayConfig(capacity=5000, num_shards=num_shards))
    alone.insert(make_trajectories([20] * 30), "real")
    real = alone.source([SampleSpec("real_only", 7)], 64, 0.99).sample(11, 5)
    batch = replay.source([spec], 64, 0.99).sample(11, 5)
    for name in ("z", "action", "reward", "next_z", "discount", "weight", "is_synthetic"):
        np.testing.assert_array_equal(batch[name], real[name], err_msg=name)


def test_the_real_part_is_a_prefix_of_the_real_only_batch(make_trajectories):
    replay = filled(make_trajectories)
    source = replay.source([SampleSpec("real", 7), SampleSpec("mixed", 7, 0.25, "weight", "sampling")], 64, 0.99)
    batch = source.sample(0, 8)
    assert batch["is_synthetic"][:, 0].sum() == 0
    np.testing.assert_array_equal(batch["is_synthetic"][:, 1].sum(-1), 16)
    np.testing.assert_array_equal(batch["z"][:, 1, :48], batch["z"][:, 0, :48])
    assert (batch["trust"][:, 1, 48:] == 0).all()


@pytest.mark.parametrize("num_shards", [1, 5])
@pytest.mark.parametrize("weighting", ["uniform", "sampling", "loss"])
def test_frequencies_follow_the_law(make_trajectories, num_shards, weighting):
    """Chi-square over all synthetic transitions, in shards of which one holds next to nothing and one nearly all."""
    g = np.random.default_rng(3)
    weights = g.gamma(0.5, size=(20, 20)).astype(np.float32)
    weights[4] = 0
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=5000, num_shards=num_shards))
    replay.insert(make_trajectories([20] * 30), "real")
    segments = from_trajectories(make_trajectories([20] * 20, name="s", weights=weights), SCHEMA, "synthetic")
    shard = np.array([0, 1, 1] + [2] * 4 + [3] * 13)  # none in the last one of five
    replay.insert_segments(dataclasses.replace(segments, codes=np.arange(20) * 5 + shard))
    law = weights.astype(float) if weighting == "sampling" else np.ones((20, 20))
    batch = replay.source([SampleSpec("s", 5, 1.0, "weight", weighting)], 200, 0.99).sample(0, 500)
    counts = np.zeros((20, 20))
    np.add.at(counts, (batch["z"][:, 0, :, 0].astype(int), batch["z"][:, 0, :, 1].astype(int)), 1)
    expected = law / law.sum() * counts.sum()
    assert counts[expected == 0].sum() == 0
    told = expected > 5
    statistic = ((counts[told] - expected[told]) ** 2 / expected[told]).sum()
    assert 1e-4 < stats.chi2.sf(statistic, told.sum() - 1) < 1 - 1e-4


def test_weights_for_the_loss_are_those_of_the_rows(make_trajectories):
    weights = np.arange(400, dtype=np.float32).reshape(20, 20) / 400
    source = filled(make_trajectories, 2, weights).source([SampleSpec("l", 0, 0.5, "weight", "loss")], 64, 0.99)
    batch = source.sample(0, 4)
    synthetic = batch["is_synthetic"]
    episode, step = (batch["z"][..., i][synthetic].astype(int) for i in range(2))
    np.testing.assert_array_equal(batch["weight"][synthetic], weights[episode, step])
    assert (batch["weight"][~synthetic] == 1).all()
    told = source.accounting.to_json()["l"]
    assert told["sampled_real"] == told["sampled_synthetic"] == 128
    share = batch["weight"][synthetic].sum() / batch["weight"].sum()
    assert told["effective_contribution"] == pytest.approx(share, rel=1e-6)
    assert sum(told["age_real"]) == sum(told["trust_real"]) == 128


def test_bad_input_is_told_and_leaves_the_buffer_as_it_was(make_trajectories):
    replay = filled(make_trajectories, 2)
    before = replay.source([SampleSpec("a", 0)], 32, 0.9).sample(0, 2)
    spoiled = make_trajectories([20] * 9, name="x")
    spoiled.z[8, 3, 1] = np.nan
    with pytest.raises(DataError, match="NaN"):
        replay.insert(spoiled, "real")
    with pytest.raises(DataError, match="negative"):
        replay.insert(make_trajectories([20] * 9, name="x", weights=np.full((9, 20), -1, np.float32)), "synthetic")
    with pytest.raises(DataError, match="4 latents"):
        replay.insert(make_trajectories([20], latent=4), "real")
    with pytest.raises(DataError, match="no weight column 'trusted'"):
        replay.source([SampleSpec("a", 0, 0.5, "trusted", "loss")], 32, 0.9)
    with pytest.raises(DataError, match="takes 1000 real transitions and the replay buffer holds 600"):
        replay.source([SampleSpec("a", 0)], 1000, 0.9).sample(0, 1)
    with pytest.raises(DataError, match="the replay buffer is empty"):
        LocalReplay(SCHEMA, ReplayConfig()).source([SampleSpec("a", 0)], 2, 0.9).sample(0, 1)
    after = replay.source([SampleSpec("a", 0)], 32, 0.9).sample(0, 2)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_batch_larger_than_its_stratum_is_refused_unless_real_data_may_stand_in(make_trajectories, num_shards):
    weights = np.zeros((20, 20), np.float32)
    replay = filled(make_trajectories, num_shards, weights, np.arange(20) < 1)
    cases = {
        "weight": r"takes 32 synthetic .* holds 0 of positive weight 'weight' \(400 in all\)",
        "in_bounds": r"takes 32 synthetic .* holds 20 of positive weight 'in_bounds' \(400 in all\)",
    }
    for column, told in cases.items():
        with pytest.raises(DataError, match=told):
            replay.source([SampleSpec("s", 0, 0.5, column, "sampling")], 64, 0.9).sample(0, 1)
    with pytest.raises(DataError, match=r"holds 0 of positive weight 'weight' \(400 in all\).*when_short"):
        replay.source([SampleSpec("s", 0, 0.5, "weight", "loss")], 64, 0.9).sample(0, 1)
    with pytest.raises(DataError, match=r"takes 500 synthetic transitions and the replay buffer holds 400; insert"):
        replay.source([SampleSpec("s", 0, 0.5)], 1000, 0.9).sample(0, 1)
    fewer = SampleSpec("s", 0, 0.5, "in_bounds", "sampling", when_short="real")
    batch = replay.source([fewer], 64, 0.9).sample(0, 3)
    np.testing.assert_array_equal(batch["is_synthetic"].sum(-1), 20)
    exact = replay.source([SampleSpec("s", 0, 0.3, "in_bounds", "sampling")], 64, 0.9).sample(0, 3)
    np.testing.assert_array_equal(exact["is_synthetic"].sum(-1), 19)


def test_weights_change_in_bulk(make_trajectories):
    replay = filled(make_trajectories, 3)
    synthetic = make_trajectories([20] * 20, name="s")
    values = np.zeros((20, 20), np.float32)
    values[3, 4] = 2.0
    assert replay.set_weights("weight", synthetic, "synthetic", values) == 400
    batch = replay.source([SampleSpec("s", 0, 0.01, "weight", "sampling")], 100, 0.9).sample(0, 3)
    np.testing.assert_array_equal(batch["reward"][batch["is_synthetic"]], 304)
    values[3, 4] = np.nan
    with pytest.raises(DataError, match="NaN"):
        replay.set_weights("weight", synthetic, "synthetic", values)


def test_synthetic_data_never_pushes_real_data_out(make_trajectories):
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=210, num_shards=1))
    replay.insert(make_trajectories([20] * 10), "real")
    for k in range(5):
        weights = np.ones((10, 20), np.float32)
        replay.insert(make_trajectories([20] * 10, name=f"s{k}-", weights=weights), "synthetic")
    real, synthetic = (stratum.ring for stratum in replay.partitions[0].strata)
    assert (real.num_transitions, synthetic.num_transitions) == (200, 200)
    batch = replay.source([SampleSpec("a", 0, 0.5, "weight", "sampling")], 64, 0.9).sample(0, 100)
    assert len(np.unique(batch["reward"][~batch["is_synthetic"]])) == 200
    assert batch["age"].max() == 209


def test_one_insert_may_hold_both_sources(make_trajectories):
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=500))
    real = from_trajectories(make_trajectories([5, 6]), SCHEMA, "real")
    synthetic = from_trajectories(make_trajectories([5, 6], name="s"), SCHEMA, "synthetic")
    both = join([synthetic, real])
    assert replay.insert_segments(both).inserted == 22
    assert replay.insert_segments(both).duplicates == 22
    both.rows[-2, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        replay.insert_segments(both)


def test_memory_is_used_again_only_when_nobody_looks(make_trajectories):
    source = filled(make_trajectories, 2).source([SampleSpec("a", 0)], 32, 0.9)
    kept = source.sample(0, 2)["z"]
    copy = kept.copy()
    places = set()
    for step in range(20):
        z = source.sample(step, 2)["z"]
        places.add(z.__array_interface__["data"][0])
        assert not np.shares_memory(z, kept)
    np.testing.assert_array_equal(kept, copy)
    assert len(places) <= 2  # `z` of one step is still looked at while the next is drawn


def test_it_needs_no_ray():
    script = "import sys; sys.modules['ray'] = None; import phaseb.replay.local"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
