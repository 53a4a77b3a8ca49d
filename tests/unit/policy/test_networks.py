import itertools

import numpy as np
import torch
from torch import nn

from phaseb.policy.networks import ActorStack, clip_per_run, log_squash, make_mlp


def alone(stack, g):
    """Member g of a stack as ordinary modules."""
    layers = []
    for weight, bias in zip(stack.weights, stack.biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        linear.weight.data, linear.bias.data = weight[g].detach().T.clone(), bias[g, 0].detach().clone()
        layers += [linear, nn.LayerNorm(weight.shape[2], elementwise_affine=False), nn.ReLU()]
    layers = layers[:-2]
    return nn.Sequential(*(layer for layer in layers if stack.norm or not isinstance(layer, nn.LayerNorm)))


def test_stack_is_many_perceptrons():
    for norm in (False, True):
        stack = make_mlp([3, 8, 8, 2], [1, 2], "x", 3, norm)
        x = torch.randn(6, 5, 3)
        for g in range(6):
            torch.testing.assert_close(stack(x)[g], alone(stack, g)(x[g]), rtol=1e-5, atol=1e-6)


def test_a_run_starts_the_same_whoever_is_beside_it():
    together, single = make_mlp([3, 8, 1], [4, 9, 4], "x", 2, True), make_mlp([3, 8, 1], [9], "x", 2, True)
    for a, b in zip(together.parameters(), single.parameters(), strict=True):
        assert torch.equal(a[2:4], b)
        assert torch.equal(a[:2], a[4:])
    first, second = next(single.parameters())
    assert not torch.equal(first, second), "the members of an ensemble must differ"


def test_log_density_of_a_draw_is_that_before_squashing_and_of_an_action_that_after_it():
    actor = ActorStack(make_mlp([3, 16, 4], [0, 1], "actor", 1, False))
    z, noise = torch.randn(2, 7, 3), torch.randn(2, 7, 2)
    action, log_density, mean = actor.sample(z, noise)
    raw_mean, log_std = actor(z)
    normal = torch.distributions.Normal(raw_mean, log_std.exp())
    squashed = torch.distributions.TransformedDistribution(normal, [torch.distributions.TanhTransform(cache_size=1)])
    expected = normal.log_prob(torch.atanh(action)).sum(-1)
    torch.testing.assert_close(log_density, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(actor.log_density(z, mean), squashed.log_prob(mean).sum(-1), rtol=1e-3, atol=1e-3)


def switching(seed=0):
    """One run over 3 latents: a continuous dimension, and a switch between -1 and 1."""
    levels = torch.tensor([[0.0, 0.0], [-1.0, 1.0]])
    return ActorStack(make_mlp([3, 16, 4], [seed], "actor", 1, False), levels).requires_grad_(False)


def test_choices_are_the_policy_s_expectation_over_its_switches():
    actor, z = switching(), torch.randn(1, 6, 3)
    noise = torch.randn(1, 6, 2)
    choices, mean = actor.choices(z, noise)
    assert choices.actions.shape == (1, 2, 6, 2)
    torch.testing.assert_close(choices.share.sum(1), torch.ones(1, 6))
    assert choices.actions[0, :, 0, 1].tolist() == [-1.0, 1.0]
    expected = (choices.share[..., None] * choices.actions).sum(1)[..., 1]
    torch.testing.assert_close(expected, torch.tanh(mean[..., 1]))
    _, log_std = actor(z)
    normal = torch.distributions.Normal(mean[..., 0], log_std[..., 0].exp())
    drive = torch.atanh(choices.actions[:, 1, :, 0])
    expected = normal.log_prob(drive) + choices.share[:, 1].log()
    torch.testing.assert_close(choices.log_density[:, 1], expected, rtol=1e-3, atol=1e-3)


def test_a_switch_is_drawn_as_often_as_it_says_and_is_never_in_between():
    actor, z = switching(3), torch.randn(1, 1, 3).expand(1, 20_000, 3)
    action, log_density, mode_action = actor.sample(z, torch.randn(1, 20_000, 2))
    assert set(action[0, :, 1].tolist()) == {-1.0, 1.0}
    choices, mean = actor.choices(z[:, :1], torch.zeros(1, 1, 2))
    share = float(choices.share[0, 1, 0])
    assert abs(float((action[..., 1] > 0).float().mean()) - share) < 0.015
    assert float(mode_action[0, 0, 1]) == (1.0 if float(mean[0, 0, 1]) > 0 else -1.0)
    assert torch.isfinite(log_density).all()


def test_cloning_pulls_at_a_switch_that_is_surely_wrong():
    actor, recorded = switching(), torch.tensor([[[0.0, 1.0]]])
    mean = torch.tensor([[[0.0, -12.0]]], requires_grad=True)
    actor.bc_distance(mean, recorded).sum().backward()
    assert mean.grad[0, 0, 1] < -0.9, "through tanh alone the pull would be nothing"


def test_log_squash_is_exact_where_tanh_saturates():
    raw = torch.tensor([-30.0, -3.0, 0.0, 3.0, 30.0])
    middle = np.log1p(-(np.tanh(np.array([-3.0, 0.0, 3.0])) ** 2))
    exact = [2 * np.log(2) - 60, *middle, 2 * np.log(2) - 60]
    np.testing.assert_allclose(log_squash(raw).numpy(), np.array(exact, float), rtol=1e-5, atol=1e-6)


def test_clipping_is_a_run_s_own():
    gradients = [torch.ones(4, 2, 3), torch.ones(4, 1, 3)]
    gradients[0][2:] *= 100
    before = [g.clone() for g in gradients]
    norms = clip_per_run(gradients, 2, limit=5.0)
    expected = [sum(float((g[a:b] ** 2).sum()) for g in before) ** 0.5 for a, b in itertools.pairwise([0, 2, 4])]
    np.testing.assert_allclose(norms, expected, rtol=1e-6)
    assert torch.equal(gradients[0][:2], before[0][:2]), "a run below the limit is left alone"
    clipped = sum(float((g[2:] ** 2).sum()) for g in gradients) ** 0.5
    np.testing.assert_allclose(clipped, 5.0, rtol=1e-4)


def test_gradients_below_the_limit_stay_as_they_are():
    gradients = [torch.rand(4, 2, 3), torch.rand(4, 1, 3)]
    before = [g.clone() for g in gradients]
    clip_per_run(gradients, 2, limit=100.0)
    assert all(torch.equal(a, b) for a, b in zip(gradients, before, strict=True))
