from dataclasses import replace

import numpy as np
import pytest
import torch

from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.policy.actor import Actor
from phaseb.policy.behavior_metrics import action_levels, action_mse, snapped, two_levels
from phaseb.policy.networks import ActorStack, make_mlp
from phaseb.runtime.storage import Store


def actor(run=1):
    return Actor.of_run(ActorStack(make_mlp([4, 16, 16, 6], [0, 1], "actor", 1, False)), run)


def test_saved_and_loaded_acts_alike(tmp_path):
    one, store = actor(), Store.at(tmp_path).folder("policy", "real_only", "0")
    one.save(store, {"arm": "real_only"})
    z = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    np.testing.assert_array_equal(Actor.load(store).act(z), one.act(z))
    assert one.act(z).shape == (9, 3)
    assert np.abs(one.act(z)).max() <= 1


def test_a_saved_policy_keeps_its_switches(tmp_path):
    levels = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    stack = ActorStack(make_mlp([4, 16, 6], [0], "actor", 1, False), levels=levels)
    store, z = Store.at(tmp_path), np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    Actor.of_run(stack, 0).save(store)
    acts = Actor.load(store).act(z)
    assert set(acts[:, 1].tolist()) == {0.0, 1.0}
    drawn = Actor.load(store).sample(torch.from_numpy(z), torch.Generator().manual_seed(0))
    assert set(drawn[:, 1].tolist()) == {0.0, 1.0}
    assert len(np.unique(drawn[:, 0])) == 40


def test_a_switch_is_what_was_recorded_at_two_levels_only():
    g = np.random.default_rng(0)
    actions = g.uniform(-1, 1, (3, 5, 3)).astype(np.float32)
    actions[..., 1] = np.where(g.random((3, 5)) < 0.5, -1.0, 1.0)
    actions[0, 4, 1] = 0.25  # padding
    recorded = Trajectories(
        z=np.zeros((3, 6, 2), np.float32),
        actions=actions,
        rewards=np.zeros((3, 5), np.float32),
        terminals=np.zeros((3, 5), np.float32),
        lengths=np.array([4, 5, 5]),
        ids=("a", "b", "c"),
        splits=("train",) * 3,
    )
    levels = action_levels(recorded)
    assert levels[1].tolist() == [-1.0, 1.0]
    assert not levels[[0, 2]].any()


def test_an_altered_policy_is_refused(tmp_path):
    store = Store.at(tmp_path)
    actor().save(store)
    name = next(n for n in store.names(suffix=".safetensors"))
    blob = bytearray(store.read_bytes(name))
    blob[-1] ^= 1
    store.write_bytes(bytes(blob), name)
    with pytest.raises(DataError, match="altered"):
        Actor.load(store)


def test_other_latents_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 5\) do not fit"):
        actor().act(np.zeros((2, 5), np.float32))


def test_the_mean_is_the_stack_s_and_samples_spread_around_it():
    stack = ActorStack(make_mlp([4, 16, 16, 6], [0, 1], "actor", 1, False)).requires_grad_(False)
    one, z = Actor.of_run(stack, 1), torch.randn(5, 4)
    torch.testing.assert_close(one(z), torch.tanh(stack(z[None].expand(2, -1, -1))[0][1]))
    many = one.sample(z[:1].expand(4000, -1), torch.Generator().manual_seed(0))
    raw = torch.atanh(many.clamp(-0.9999, 0.9999))
    mean, log_std = (value[1, 0] for value in stack(z[None, :1].expand(2, -1, -1)))
    np.testing.assert_allclose(raw.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(raw.std(0), log_std.exp(), rtol=0.1)


def test_members_act_by_the_mean_of_their_actions(tmp_path):
    """Each of two runs has three members; one that is surely wrong is outvoted."""
    stack, z = make_mlp([4, 16, 4], [0, 1], "actor", 3, False), torch.randn(7, 4)
    actors = ActorStack(stack, num_members=3).requires_grad_(False)
    stack.biases[-1][3, :, 0] = 9.0  # a member of the second run at the end of the range
    one = Actor.of_run(actors, 1)
    alone = [
        Actor([w[k : k + 1] for w in stack.weights], [b[k : k + 1] for b in stack.biases], False) for k in (3, 4, 5)
    ]
    mean = torch.stack([member(z) for member in alone]).mean(0)
    torch.testing.assert_close(one(z), mean)
    assert float(one(z)[:, 0].max()) < 0.7
    torch.testing.assert_close(actors.members(z[None].expand(2, -1, -1))[0].tanh().mean(1)[1], mean)
    one.save(Store.at(tmp_path))
    np.testing.assert_array_equal(Actor.load(Store.at(tmp_path)).act(z.numpy()), one.act(z.numpy()))


def test_members_that_agree_on_the_end_of_the_range_stay_there():
    stack = make_mlp([4, 16, 2], [0], "actor", 5, False)
    stack.biases[-1].data[:, :, 0] = 50.0
    action = Actor.of_run(ActorStack(stack, num_members=5), 0).act(np.zeros((1, 4), np.float32))
    assert action[0, 0] == pytest.approx(1.0, abs=2e-6)


def test_a_switch_follows_most_of_its_members():
    """Each member says how likely the upper level is; the mean of these decides."""
    stack, levels = make_mlp([4, 16, 2], [0], "actor", 3, False), torch.tensor([[0.0, 1.0]])
    for weights in stack.weights:
        weights.data.zero_()
    stack.biases[-1].data[:, 0, 0] = torch.tensor([0.2, 0.3, -5.0])
    policy = Actor.of_run(ActorStack(stack, levels, 3), 0)
    assert policy.act(np.zeros((1, 4), np.float32)) == [[0.0]]
    stack.biases[-1].data[2, 0, 0] = -0.2
    assert Actor.of_run(ActorStack(stack, levels, 3), 0).act(np.zeros((1, 4), np.float32)) == [[1.0]]


def test_action_mse_counts_recorded_steps_only():
    z = np.zeros((2, 4, 3), np.float32)
    actions = np.zeros((2, 3, 2), np.float32)
    actions[0, 0] = 1.0
    actions[1, 2] = 99.0  # padding
    held_out = Trajectories(
        z=z,
        actions=actions,
        rewards=np.zeros((2, 3), np.float32),
        terminals=np.zeros((2, 3), np.float32),
        lengths=np.array([3, 2]),
        ids=("a", "b"),
        splits=("dev", "dev"),
    )
    mse = action_mse(lambda rows: np.full((len(rows), 2), 0.5, np.float32), held_out)
    assert mse == pytest.approx(0.25 / 0.16), "in recorded standard deviations; what never moved is left out"
    assert np.isnan(action_mse(lambda rows: rows, held_out.select([])))


def test_action_mse_does_not_mind_the_range_that_actions_are_scaled_by():
    """Bounds a thousand times as wide as what was recorded: a policy of zeros is as bad as it is."""
    z, g = np.zeros((1, 51, 3), np.float32), np.random.default_rng(0)
    actions = g.standard_normal((1, 50, 2)).astype(np.float32)
    held_out = Trajectories(
        z=z,
        actions=actions,
        rewards=np.zeros((1, 50), np.float32),
        terminals=np.zeros((1, 50), np.float32),
        lengths=np.array([50]),
        ids=("a",),
        splits=("dev",),
    )
    for factor in (1.0, 1e-3):
        told = replace(held_out, actions=(factor * actions).astype(np.float32))
        mse = action_mse(lambda rows: np.zeros((len(rows), 2), np.float32), told)
        assert mse == pytest.approx(1.0, abs=0.05)


def test_a_switch_is_put_to_the_nearer_of_its_levels_and_nothing_else_is_touched():
    recorded = np.array([[0.1, -1.0, 0.0], [0.7, 3.0, 0.0], [-0.2, -1.0, 0.0]], np.float32)
    levels = two_levels(recorded)
    np.testing.assert_array_equal(levels, [[0, 0], [-1, 3], [0, 0]])
    noisy = np.array([[0.123, 0.9, 0.5], [-0.4, 1.1, 0.0]], np.float32)
    np.testing.assert_array_equal(snapped(noisy, levels), np.array([[0.123, -1, 0.5], [-0.4, 3, 0.0]], np.float32))
