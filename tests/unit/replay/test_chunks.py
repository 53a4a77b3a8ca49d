"""Chunks of actions out of the buffer: where they end, and what their steps weigh."""

import numpy as np
import pytest

from phaseb.config.policy import ReplayConfig
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec

SCHEMA = TransitionSchema(latent_size=3, action_size=2, weights=("weight",))
LENGTHS = [7, 2, 11, 5]


def chunks_of(replay, spec, num_batches=40, steps=4):
    return replay.source([spec], 8, 0.9, chunk_steps=steps).sample(0, num_batches)


@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_chunk_holds_the_actions_that_follow_and_ends_with_its_episode(make_trajectories, num_shards):
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=300, num_shards=num_shards))
    replay.insert(make_trajectories(LENGTHS), "real")
    batch = chunks_of(replay, SampleSpec("a", 0))
    episode, step = batch["z"][..., 0].astype(int), batch["z"][..., 1].astype(int)
    ahead = step[..., None] + np.arange(4)
    inside = ahead < np.array(LENGTHS)[episode][..., None]
    np.testing.assert_array_equal(batch["chunk_share"], inside)
    wanted = np.where(inside, 100 * episode[..., None] + ahead, 0)
    for dim in range(2):
        np.testing.assert_array_equal(batch["chunk"][..., dim], wanted)
    np.testing.assert_array_equal(batch["chunk"][..., 0, :], batch["action"])
    assert (inside.sum(-1) < 4).any()
    assert (inside.sum(-1) == 4).any()


def test_chunks_of_a_full_ring_wrap_around_and_stay_within_episodes(make_trajectories):
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=40))
    for number in range(7):
        replay.insert(make_trajectories([9, 3], name=f"{number}-"), "real")
    batch = chunks_of(replay, SampleSpec("a", 1))
    episode, step = batch["z"][..., 0].astype(int), batch["z"][..., 1].astype(int)
    ahead = step[..., None] + np.arange(4)
    inside = ahead < np.array([9, 3])[episode][..., None]
    np.testing.assert_array_equal(batch["chunk_share"], inside)
    np.testing.assert_array_equal(batch["chunk"][..., 0], np.where(inside, 100 * episode[..., None] + ahead, 0))


@pytest.mark.parametrize("weighting", ["sampling", "loss"])
def test_a_step_of_a_synthetic_chunk_counts_with_the_least_weight_up_to_it(make_trajectories, weighting):
    weights = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    weights[:, 5] = 0.0
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=300))
    replay.insert(make_trajectories([12, 12]), "real")
    replay.insert(make_trajectories([8] * 6, name="s", weights=weights), "synthetic")
    batch = chunks_of(replay, SampleSpec("a", 0, 0.5, "weight", weighting))
    made = batch["is_synthetic"]
    episode, step = batch["z"][..., 0][made].astype(int), batch["z"][..., 1][made].astype(int)
    effective = batch["weight"][made][:, None] * batch["chunk_share"][made]
    padded = np.pad(weights, ((0, 0), (0, 4)))
    least = np.minimum.accumulate(padded[episode[:, None], step[:, None] + np.arange(4)], -1)
    wanted = least / least[:, :1].clip(1e-9) if weighting == "sampling" else least
    np.testing.assert_allclose(effective, wanted, atol=1e-6)
    assert (effective[step == 4, 1:] == 0).all(), "nothing behind an untrusted step"


def test_workers_take_parts_of_the_same_chunks(make_trajectories):
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=300, num_shards=2))
    replay.insert(make_trajectories(LENGTHS), "real")
    specs = [SampleSpec("a", 0), SampleSpec("b", 1)]
    whole = replay.source(specs, 8, 0.9, chunk_steps=3).sample(2, 3)
    parts = [replay.source(specs, 8, 0.9, rank, 2, 3).sample(2, 3) for rank in range(2)]
    for name in ("chunk", "chunk_share"):
        np.testing.assert_array_equal(whole[name], np.concatenate([part[name] for part in parts], axis=2))
    assert "chunk" not in replay.source(specs, 8, 0.9).sample(0, 1)
