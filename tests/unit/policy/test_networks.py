import itertools

import numpy as np
import torch
from torch import nn

from phaseb.policy.networks import ActorStack, clip_per_run, log_squash, make_stack


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
        stack = make_stack([3, 8, 8, 2], [1, 2], "x", 3, norm)
        x = torch.randn(6, 5, 3)
        for g in range(6):
            torch.testing.assert_close(stack(x)[g], alone(stack, g)(x[g]), rtol=1e-5, atol=1e-6)


def test_a_run_starts_the_same_whoever_is_beside_it():
    together, single = make_stack([3, 8, 1], [4, 9, 4], "x", 2, True), make_stack([3, 8, 1], [9], "x", 2, True)
    for a, b in zip(together.parameters(), single.parameters(), strict=True):
        assert torch.equal(a[2:4], b)
        assert torch.equal(a[:2], a[4:])
    first, second = next(single.parameters())
    assert not torch.equal(first, second), "the members of an ensemble must differ"


def test_log_density_is_that_of_the_squashed_gaussian():
    actor = ActorStack(make_stack([3, 16, 4], [0, 1], "actor", 1, False))
    z, noise = torch.randn(2, 7, 3), torch.randn(2, 7, 2)
    action, log_density, mean = actor.sample(z, noise)
    raw_mean, log_std = actor(z)
    normal = torch.distributions.Normal(raw_mean, log_std.exp())
    squashed = torch.distributions.TransformedDistribution(normal, [torch.distributions.TanhTransform(cache_size=1)])
    expected = squashed.log_prob(action).sum(-1)
    torch.testing.assert_close(log_density, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(actor.log_density(z, mean), squashed.log_prob(mean).sum(-1), rtol=1e-3, atol=1e-3)


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
