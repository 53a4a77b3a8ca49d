"""The buffer as a learner sees it, without Ray."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from scipy import stats

from phaseb.config.replay import ReplayConfig
from phaseb.errors import DataError
from phaseb.replay.local import LocalReplay
from phaseb.replay.routing import rows_per_shard, with_room
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import from_trajectories, join
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.storage import Store

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
    specs.append(SampleSpec("p", 2, 0.5, weighting="priority"))
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
@pytest.mark.parametrize("weighting", ["uniform", "sampling", "loss", "priority"])
def test_frequencies_follow_the_law(make_trajectories, num_shards, weighting):
    """Chi-square over all synthetic transitions, in shards of which one holds next to nothing and one nearly all."""
    g = np.random.default_rng(3)
    weights = g.gamma(0.5, size=(20, 20)).astype(np.float32)
    weights[4] = 0
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=5000, num_shards=num_shards, priority_exponent=0.7))
    replay.insert(make_trajectories([20] * 30), "real")
    segments = from_trajectories(make_trajectories([20] * 20, name="s", weights=weights), SCHEMA, "synthetic")
    shard = np.array([0, 1, 1] + [2] * 4 + [3] * 13)  # none in the last one of five
    replay.insert_segments(dataclasses.replace(segments, codes=np.arange(20) * 5 + shard))
    law = weights.astype(float) if weighting == "sampling" else np.ones((20, 20))
    if weighting == "priority":
        for partition in replay.partitions:
            ring = partition.strata[1].ring
            slots = ring.queue.at(np.arange(len(ring.queue)))
            episode, step = ring.rows[slots, 0].astype(int), ring.rows[slots, 1].astype(int)
            partition.set_priorities(ring.numbers(slots) * 2 + 1, weights[episode, step])
        law = weights.astype(float) ** 0.7
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


def test_priorities_draw_more_and_importance_weights_undo_it(make_trajectories):
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=2000, priority_exponent=1.0, importance_exponent=1.0))
    replay.insert(make_trajectories([20] * 10), "real")
    partition = replay.partitions[0]
    values = np.random.default_rng(1).gamma(1.0, size=210).astype(np.float32) + 0.05
    assert partition.set_priorities(np.arange(210) * 2, values) == 210
    batch = replay.source([SampleSpec("p", 0, weighting="priority")], 200, 0.99).sample(0, 1000)
    estimate = (batch["weight"] * batch["reward"]).mean()
    plain = batch["reward"].mean()
    truth = np.mean([100 * e + s for e in range(10) for s in range(20)])
    held = (values.reshape(10, 21)[:, :20]).astype(float)
    law = (held / held.sum() * (100 * np.arange(10)[:, None] + np.arange(20))).sum()
    assert estimate == pytest.approx(truth, rel=0.01)
    assert plain == pytest.approx(law, rel=0.01)
    assert abs(law - truth) > 0.025 * truth


def test_n_step_returns_against_a_loop(make_trajectories):
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=500, n_step=3))
    trajectories = make_trajectories([5, 2, 9])
    trajectories.terminals[2, 8] = 1
    replay.insert(trajectories, "real")
    batch = replay.source([SampleSpec("a", 0)], 16, gamma=0.5).sample(0, 20)
    flat = {k: v.reshape(-1, *v.shape[3:]) for k, v in batch.items()}
    names = ("z", "reward", "discount", "next_z", "cut")
    for z, reward, discount, after, cut in zip(*(flat[name] for name in names), strict=True):
        episode, step = int(z[0]), int(z[1])
        length = int(trajectories.lengths[episode])
        m = min(3, length - step)
        total = sum(0.5**k * trajectories.rewards[episode, step + k] for k in range(m))
        assert reward == pytest.approx(total)
        assert after[1] == step + m
        assert cut == (step + m == length and episode != 2)
        assert discount == pytest.approx(0.0 if episode == 2 and step + m == 9 else 0.5**m)


def test_bad_input_is_told_and_leaves_the_buffer_as_it_was(make_trajectories):
    replay = filled(make_trajectories, 2, min_size=10)
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
    with pytest.raises(DataError, match="min_size is 700"):
        LocalReplay(SCHEMA, ReplayConfig(min_size=700)).source([SampleSpec("a", 0)], 2, 0.9).sample(0, 1)
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


def test_priorities_that_are_all_zero_are_refused(make_trajectories):
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=500))
    replay.insert(make_trajectories([20] * 3), "real")
    replay.partitions[0].set_priorities(np.arange(63) * 2, np.zeros(63, np.float32))
    with pytest.raises(DataError, match=r"holds 0 of positive priority \(60 in all\)"):
        replay.source([SampleSpec("p", 0, weighting="priority")], 8, 0.9).sample(0, 1)
    assert replay.source([SampleSpec("a", 0)], 8, 0.9).sample(0, 1)["z"].shape == (1, 1, 8, 3)


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


@pytest.mark.parametrize("num_shards", [1, 3])
def test_sequences_never_cross_an_episodes_end_and_all_are_drawn_alike(make_trajectories, num_shards):
    lengths = [9, 4, 3, 12, 5]
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=60 * num_shards, num_shards=num_shards))
    for k in range(4):  # so that the rings turn
        replay.insert(make_trajectories([9] * 4 * num_shards, name=f"old{k}"), "real")
    trajectories = make_trajectories(lengths, name="n", weights=np.ones((5, 12), np.float32))
    replay.insert(trajectories, "synthetic")
    batch = replay.source([SampleSpec("s", 0, 1.0, length=4)], 8, 0.9).sample(0, 1500)
    episode, step = batch["z"][:, 0, :, :, 0], batch["z"][:, 0, :, :, 1]
    assert batch["z"].shape == (1500, 1, 8, 5, 3)
    assert (np.ptp(episode, axis=-1) == 0).all()
    np.testing.assert_array_equal(np.diff(step, axis=-1), 1)
    np.testing.assert_array_equal(batch["reward"][:, 0], 100 * episode[..., :-1] + step[..., :-1])
    starts, counts = np.unique(100 * episode[..., 0] + step[..., 0], return_counts=True)
    expected = [100 * e + t for e, n in enumerate(lengths) for t in range(n - 3)]
    np.testing.assert_array_equal(starts, expected)
    assert stats.chisquare(counts).pvalue > 1e-4
    real = replay.source([SampleSpec("r", 0, length=9)], 4, 0.9).sample(0, 50)
    np.testing.assert_array_equal(np.diff(real["z"][..., 1], axis=-1), 1)


@pytest.mark.parametrize("num_shards", [1, 2])
@pytest.mark.parametrize("n_step", [1, 3])
def test_frames_come_with_their_transitions(make_trajectories, num_shards, n_step):
    schema = TransitionSchema(3, 2, frame_shape=(1, 2, 1))
    replay = LocalReplay(schema, ReplayConfig(capacity=200, num_shards=num_shards, n_step=n_step))
    trajectories = make_trajectories([6, 3, 8])
    frames = (20 * trajectories.z[..., 0] + trajectories.z[..., 1]).astype(np.uint8)[..., None, None, None]
    replay.insert(trajectories, "real", frames=np.repeat(frames, 2, axis=3))
    batch = replay.source([SampleSpec("a", 0)], 8, 0.9).sample(0, 20)
    for name, z in (("frame", batch["z"]), ("next_frame", batch["next_z"])):
        assert batch[name].shape == (20, 1, 8, 1, 2, 1)
        np.testing.assert_array_equal(batch[name][..., 0, 1, 0], 20 * z[..., 0] + z[..., 1])


@pytest.mark.parametrize("num_shards", [1, 2, 5])
def test_what_is_saved_comes_back_into_any_number_of_shards(make_trajectories, tmp_path, num_shards):
    weights = np.random.default_rng(0).random((20, 20)).astype(np.float32)
    replay = filled(make_trajectories, 3, weights)
    saved = Store(SubTreeFileSystem(str(tmp_path), LocalFileSystem()), "replay")  # any pyarrow filesystem
    replay.save(saved)
    replay.insert(make_trajectories([20], name="late"), "real")
    replay.save(saved)
    other = LocalReplay(SCHEMA, replay.config.model_copy(update={"num_shards": num_shards}))
    assert other.restore(saved).evicted == 0
    assert other.num_transitions == replay.num_transitions == 1020
    specs = [SampleSpec("r", 0), SampleSpec("t", 0, 0.5, "weight", "loss")]
    for batch in (r.source(specs, 64, 0.9).sample(0, 300) for r in (replay, other)):
        held = np.unique(np.stack([batch["reward"], batch["weight"]], -1)[batch["is_synthetic"]], axis=0)
        np.testing.assert_array_equal(held, np.stack([np.sort(held[:, 0]), weights.ravel()], -1))
    fewer = LocalReplay(SCHEMA, replay.config.model_copy(update={"num_shards": 1}))
    fewer.restore(saved)
    fewer.save(saved)
    assert saved.folders() == ["shard-000"]
    fewer.restore(saved)
    assert fewer.num_transitions == 1020


@pytest.mark.parametrize("num_shards", [1, 2, 3, 7])
@pytest.mark.parametrize("in_bytes", [False, True])
def test_a_full_buffer_has_room_in_any_number_of_shards(make_trajectories, num_shards, in_bytes):
    limit = {"capacity_bytes": 2 * 630 * SCHEMA.row_bytes} if in_bytes else {}
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=630, **limit))
    replay.insert(make_trajectories([20] * 30), "real")  # 630 rows
    replay.insert(make_trajectories([20] * 30, name="s"), "synthetic")
    config = replay.config.model_copy(update={"num_shards": num_shards})
    narrow = LocalReplay(SCHEMA, config)
    wide = LocalReplay(SCHEMA, with_room(SCHEMA, config, [replay.partitions[0].sizes()]))
    held = replay.partitions[0].export()
    assert (narrow.insert_segments(held).evicted > 0) == (num_shards > 1)
    assert wide.insert_segments(held).evicted == 0
    assert wide.num_transitions == 1200
    assert rows_per_shard(SCHEMA, wide.config) * num_shards < 2 * 630 + num_shards


def test_a_damaged_file_restores_nothing(make_trajectories, tmp_path):
    replay = filled(make_trajectories, 2)
    replay.save(Store.at(tmp_path))
    part = next(tmp_path.glob("shard-001/snapshots/*/part-0000.bin"))
    part.write_bytes(part.read_bytes()[:-1])
    other = LocalReplay(SCHEMA, ReplayConfig(capacity=500))
    other.insert(make_trajectories([3]), "real")
    with pytest.raises(DataError, match=r"part-0000.bin is truncated or was altered.*nothing was restored"):
        other.restore(Store.at(tmp_path))
    with pytest.raises(DataError, match="no replay shards"):
        other.restore(Store.at(tmp_path / "nowhere"))
    assert other.num_transitions == 3


def test_specs_that_cannot_be_drawn_together_are_refused(make_trajectories):
    replay = filled(make_trajectories, 1, n_step=3)
    with pytest.raises(ValueError, match="another number"):
        replay.source([SampleSpec("a", 0), SampleSpec("b", 0, length=3)], 8, 0.9)
    with pytest.raises(ValueError, match="n_step"):
        replay.source([SampleSpec("b", 0, length=3)], 8, 0.9)
    with pytest.raises(ValueError, match="needs a weight_column"):
        SampleSpec("c", 0, 0.5, weighting="loss")
    with pytest.raises(ValueError, match="does not divide"):
        replay.source([SampleSpec("a", 0)], 9, 0.9, rank=0, world_size=2)


def test_it_needs_no_ray():
    script = "import sys; sys.modules['ray'] = None; import phaseb.replay.local"
    subprocess.run([sys.executable, "-c", script], check=True)
