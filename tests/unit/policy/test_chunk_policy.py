"""How plans become actions: temporal ensembling, queues, and the beginning of episodes."""

import numpy as np
import pytest
import torch

from phaseb.errors import DataError
from phaseb.policy.actor import Actor
from phaseb.policy.chunk_networks import NETWORKS, ChunkSizes
from phaseb.policy.chunk_policy import ChunkPolicy, PlanQueue, TemporalEnsemble
from phaseb.policy.networks import ActorStack, make_mlp
from phaseb.policy.trained_policy import load_policy
from phaseb.runtime.storage import Store


def policy(kind, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ChunkPolicy(NETWORKS[kind](ChunkSizes(4, 2, 5, 16)))


def plan_of_steps(z, noise):
    """A plan whose actions name the step at which it was made, and how far ahead they are."""
    num, steps, _ = noise.shape
    return np.stack([np.broadcast_to(z[:, :1], (num, steps)), np.tile(np.arange(steps), (num, 1))], -1).astype("f4")


def test_ensembling_is_the_formula_of_the_paper():
    """w_i = exp(-m i) / sum, i = 0 for the oldest plan of this step (Zhao et al. 2023)."""
    steps, decay = 4, 0.3
    g = np.random.default_rng(0)
    plans = g.standard_normal((10, 3, steps, 2)).astype(np.float32)
    made = iter(plans)
    ensemble = TemporalEnsemble(lambda z, noise: next(made), (steps, 2), decay)
    for t in range(10):
        found = ensemble(np.zeros((3, 1), np.float32), t)
        born = range(max(0, t - steps + 1), t + 1)
        weights = [np.exp(-decay * i) for i in range(len(born))]
        wanted = sum(w * plans[b][:, t - b] for w, b in zip(weights, born, strict=True)) / sum(weights)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_of_two_levels_the_newest_plan_decides_and_no_mean_of_them():
    plans = iter(np.array([[[[0.2, 1.0], [0.4, 1.0]]], [[[0.8, -1.0], [0.0, 1.0]]]], np.float32))
    ensemble = TemporalEnsemble(lambda z, noise: next(plans), (2, 2), 0.0, binary_actions=[1])
    z = np.zeros((1, 1), np.float32)
    np.testing.assert_allclose([ensemble(z, 0)[0], ensemble(z, 1)[0]], [[0.2, 1.0], [0.6, -1.0]], rtol=1e-6)


@pytest.mark.parametrize("kind", ["act", "flow"])
def test_plans_keep_to_levels_and_a_saved_policy_knows_them(kind, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        one = ChunkPolicy(NETWORKS[kind](ChunkSizes(4, 2, 5, 16)), torch.tensor([[0.0, 0.0], [-0.5, 1.0]]))
    one.save(Store.at(tmp_path))
    act, z = load_policy(Store.at(tmp_path)).closed_loop(), np.random.default_rng(0).standard_normal((9, 200, 4))
    acts = np.stack([act(z[step].astype(np.float32), step) for step in range(9)])
    assert set(np.unique(acts[..., 1])) <= {-0.5, 1.0}
    assert len(np.unique(acts[..., 0])) > 100


def test_a_queue_follows_half_a_plan_and_then_plans_anew():
    queue = PlanQueue(plan_of_steps, (6, 2))
    said = [queue(np.full((2, 1), step, np.float32), step)[0].tolist() for step in range(7)]
    assert said == [[0, 0], [0, 1], [0, 2], [3, 0], [3, 1], [3, 2], [6, 0]]


@pytest.mark.parametrize("kind", ["act", "flow"])
def test_episodes_begin_at_step_0_whatever_was_played_before(kind):
    one, z = policy(kind), np.random.default_rng(0).standard_normal((8, 3, 4)).astype(np.float32)
    fresh, used = one.closed_loop(), one.closed_loop()
    for step in range(5):
        used(-z[step], step)
    if kind == "act":
        for step in range(8):
            np.testing.assert_array_equal(fresh(z[step], step), used(z[step], step))
    else:  # other noise, but no action of the plan before
        before = used(z[0], 5)
        assert not np.array_equal(used(z[0], 0), before)
    assert used(z[0][:2], 0).shape == (2, 2), "another number of episodes"


@pytest.mark.parametrize("kind", ["act", "flow"])
def test_what_is_done_is_within_bounds_and_the_same_again(kind):
    one = policy(kind)
    z = 30 * np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    first, again = ([act(z, step) for step in range(6)] for act in (one.closed_loop(), one.closed_loop()))
    assert np.abs(first).max() <= 1
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(one(torch.from_numpy(z)), one.act(z), atol=1e-6)
    assert one.sample(torch.from_numpy(z), torch.Generator().manual_seed(0)).shape == (6, 2)


def test_other_latents_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 5\) do not fit a policy over \(N, 4\)"):
        policy("act").act(np.zeros((2, 5), np.float32))


def test_either_kind_is_read_back_as_what_it_is_and_a_stateless_one_remembers_nothing(tmp_path):
    plain = Actor.of_run(ActorStack(make_mlp([4, 16, 4], [0], "actor", 1, False)), 0)
    plain.save(Store.at(tmp_path / "plain"))
    policy("flow").save(Store.at(tmp_path / "flow"))
    assert isinstance(load_policy(Store.at(tmp_path / "flow")), ChunkPolicy)
    again, z = load_policy(Store.at(tmp_path / "plain")), np.ones((2, 4), np.float32)
    act = again.closed_loop()
    np.testing.assert_array_equal([act(z, step) for step in (0, 1, 5)], [plain.act(z)] * 3)
    with pytest.raises(DataError, match="no policy of chunks"):
        ChunkPolicy.load(Store.at(tmp_path / "plain"))
