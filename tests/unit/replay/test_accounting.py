"""The books tell of each batch once: batch by batch, at any step, and over several workers."""

import numpy as np
import pytest

from phaseb.config.policy import ReplayConfig
from phaseb.replay.accounting import SAMPLED, stats_by_batch
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec

SCHEMA = TransitionSchema(latent_size=3, action_size=2)
SPECS = [SampleSpec("r", 1), SampleSpec("t", 1, 0.3, "weight", "loss"), SampleSpec("p", 2, 0.5, weighting="priority")]


@pytest.fixture
def replay(make_trajectories):
    replay = LocalReplay(SCHEMA, ReplayConfig(capacity=5000, num_shards=2))
    replay.insert(make_trajectories([20] * 30), "real")
    g = np.random.default_rng(0)
    scored = {"weights": g.random((20, 20)).astype("f4"), "trust": g.random((20, 20)).astype("f4")}
    replay.insert(make_trajectories([20] * 20, name="s", **scored), "synthetic")
    return replay


def test_the_shards_books_are_those_of_the_learners_arrays(replay):
    source = replay.source(SPECS, 32, 0.9)
    batch = source.sample(0, 5)
    by_batch = stats_by_batch(batch)
    assert by_batch.shape[:3] == (5, 3, 2)
    np.testing.assert_allclose(by_batch.sum(0), source.accounting.stats, rtol=1e-12)
    np.testing.assert_array_equal(by_batch[..., SAMPLED].sum(-1), 32)
    np.testing.assert_array_equal(by_batch[:, 1, 1, SAMPLED], round(0.3 * 32))


def test_a_learner_that_stands_between_two_calls_has_used_what_lies_before_it(replay):
    whole = replay.source(SPECS, 32, 0.9)
    whole.sample(0, 8)
    whole.sample(8, 8)
    for step in (8, 11, 16):
        exact = replay.source(SPECS, 32, 0.9)
        exact.sample(0, step)
        np.testing.assert_allclose(whole.accounting.as_of(step), exact.accounting.stats, rtol=1e-12)
    again = replay.source(SPECS, 32, 0.9)  # a learner that was killed at step 11
    again.accounting.start_from(whole.accounting.as_of(11))
    again.sample(11, 5)
    np.testing.assert_allclose(again.accounting.stats, whole.accounting.stats, rtol=1e-12)
    assert whole.accounting.to_json()["t"]["sampled_real"] == 16 * (32 - 10)


def test_the_books_of_two_workers_are_those_of_the_whole_batches(replay):
    """Worker 0 takes the real end of every batch, worker 1 the synthetic one: neither's own books tell the mixture."""
    whole = replay.source(SPECS, 32, 0.9)
    whole.sample(0, 4)
    parts = [replay.source(SPECS, 32, 0.9, rank=rank, world_size=2) for rank in range(2)]
    own = [stats_by_batch(part.sample(0, 4)) for part in parts]
    for part in parts:
        part.accounting.start_from(np.zeros_like(whole.accounting.stats))
        part.accounting.sum_over_workers = lambda stats: own[0] + own[1]
        part.sample(0, 4)
        np.testing.assert_allclose(part.accounting.stats, whole.accounting.stats, rtol=1e-12)
        np.testing.assert_allclose(part.accounting.as_of(2), whole.accounting.as_of(2), rtol=1e-12)
    assert own[0][..., 1, SAMPLED].sum() < own[1][..., 1, SAMPLED].sum()
