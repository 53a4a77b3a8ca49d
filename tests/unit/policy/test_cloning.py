"""The cloned operator acts as the operators did: mean, spread and the share of each binary action, by state."""

import numpy as np
import torch

from phaseb.policy.cloning import clone_operator
from phaseb.runtime.seeding import torch_generator


def recorded(count=4000):
    g = np.random.default_rng(0)
    z = g.standard_normal((count, 3)).astype(np.float32)
    drive = np.clip(0.5 * z[:, 0] + 0.1 * g.standard_normal(count), -1, 1)
    grip = np.where(g.random(count) < 1 / (1 + np.exp(-3 * z[:, 1])), 1.0, -1.0)
    return z, np.stack([drive, grip], 1).astype(np.float32)


def test_it_draws_actions_as_the_operators_did():
    z, actions = recorded()
    clone = clone_operator(z, actions, 600, seed=3)
    at = torch.tensor([[0.8, 2.0, 0.0], [-0.8, -2.0, 0.0]]).repeat_interleave(2000, 0)
    drawn = clone.sample(at, torch_generator(1, "x")).numpy().reshape(2, 2000, 2)
    np.testing.assert_allclose(drawn[..., 0].mean(1), [0.4, -0.4], atol=0.05)
    np.testing.assert_allclose(drawn[..., 0].std(1), 0.1, atol=0.04)
    assert set(np.unique(drawn[..., 1])) == {-1.0, 1.0}
    assert drawn[0, :, 1].mean() > 0.9
    assert drawn[1, :, 1].mean() < -0.9


def test_the_same_seed_gives_the_same_clone():
    z, actions = recorded(300)
    drawn = [clone_operator(z, actions, 20, seed=3).sample(torch.zeros(5, 3), torch_generator(1, "x")) for _ in "ab"]
    assert torch.equal(*drawn)
