"""A cloned operator: behaviour cloning of recorded episodes by a small stochastic network, fitted in seconds.

Legend: N rows, D latent dimensions, A action dimensions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phaseb.runtime.seeding import derive_seed, torch_generator

WIDTH = 64
BATCH = 256
LEARNING_RATE = 3e-3
LEAST_LOG_STD = -4.0


@dataclass(frozen=True)
class ClonedOperator:
    """A policy that draws its actions as the operators did.

    Attributes:
        network: latents (N, D) to means and logits (N, A) and log standard deviations (N, A).
        values: (A, 2) the two values of binary actions; NaN for the others, which are Gaussian.
    """

    network: nn.Module
    values: Tensor

    @torch.no_grad()
    def sample(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Actions (N, A) in [-1, 1] at latents (N, D)."""
        mean, log_std = self.network(z).chunk(2, -1)
        uniform = torch.rand(mean.shape, generator=generator)
        noise = torch.randn(mean.shape, generator=generator)
        graded = (mean + log_std.clamp(LEAST_LOG_STD, 1.0).exp() * noise).clamp(-1, 1)
        binary = torch.where(uniform < torch.sigmoid(mean), self.values[:, 1], self.values[:, 0])
        return torch.where(self.values[:, 0].isnan(), graded, binary)


def clone_operator(z: NDArray[np.float32], actions: NDArray[np.float32], num_steps: int, seed: int) -> ClonedOperator:
    """Fit a clone to recorded latents (N, D) and actions (N, A) by maximum likelihood."""
    inputs, targets = torch.from_numpy(z), torch.from_numpy(actions)
    values = torch.full((actions.shape[1], 2), torch.nan)
    for a, column in enumerate(actions.T):
        found = np.unique(column)
        if len(found) == 2:
            values[a] = torch.from_numpy(found)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "clone") % 2**63)
        network = nn.Sequential(
            nn.Linear(z.shape[1], WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, 2 * actions.shape[1]),
        )
    clone = ClonedOperator(network, values)
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, num_steps)
    generator = torch_generator(seed, "clone batches")
    for _ in range(num_steps):
        rows = torch.randint(len(inputs), (min(BATCH, len(inputs)),), generator=generator)
        optimiser.zero_grad()
        _negative_log_likelihood(clone, inputs[rows], targets[rows]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return clone


def _negative_log_likelihood(clone: ClonedOperator, z: Tensor, actions: Tensor) -> Tensor:
    mean, log_std = clone.network(z).chunk(2, -1)
    log_std = log_std.clamp(LEAST_LOG_STD, 1.0)
    gaussian = log_std + 0.5 * ((actions - mean) * (-log_std).exp()).square()
    chosen = (actions > clone.values.mean(-1)).to(mean)
    bernoulli = nn.functional.binary_cross_entropy_with_logits(mean, chosen, reduction="none")
    return torch.where(clone.values[:, 0].isnan(), gaussian, bernoulli).sum(-1).mean()
