"""Which directions of the latent the rewards are about: found where rewards are many, used where they are few.

A reward that comes with every step often pays for progress, r = φ(z') − φ(z) + e, with e the price of the step itself
(potential-based shaping, Ng, Harada & Russell 1999), and φ depends on a few combinations of the latent. We model
φ(z) = Σ_j f_j(w_j · z), an additive Gaussian process along J directions, and find the w_j by maximum a posteriori.
What a rare event is worth then has J inputs instead of D: thirty examples tell where it pays, which D inputs hide.

Shapes: N steps, D latent dimensions, A actions, J directions.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.episodes.resolution import is_constant, spread_of
from phaseb.runtime.seeding import torch_generator

Floats = NDArray[np.floating]
JITTER = 1e-6
LEAST_ROWS = 60


@dataclass(frozen=True)
class SearchPlan:
    """How directions are searched for.

    Attributes:
        num_directions: J.
        rows: most steps that are looked at.
        steps: of Adam.
        starts: searches from other random directions; the likeliest wins.
    """

    num_directions: int = 3
    rows: int = 250
    steps: int = 120
    starts: int = 2


def find_directions(
    z: Floats, actions: Floats, after: Floats, rewards: Floats, plan: SearchPlan, seed: int
) -> NDArray[np.float64]:
    """(D, J) unit directions that explain rewards (N,) of steps from z to after (N, D) under actions (N, A).

    (D, 0) where there are too few steps, or rewards that do not vary.
    """
    if len(z) < LEAST_ROWS or is_constant(np.asarray(rewards)[:, None])[0]:
        return np.zeros((z.shape[-1], 0))
    found = []
    for start in range(plan.starts):
        generator = torch_generator(seed, "directions", start)
        rows = torch.randperm(len(z), generator=generator)[: plan.rows].numpy()
        cost, directions = _search(_Steps.of(z[rows], actions[rows], after[rows], rewards[rows]), plan, generator)
        found.append((cost / len(rows), directions))
    best = min(found, key=lambda pair: pair[0])[1].numpy()
    return best / np.maximum(np.linalg.norm(best, axis=0), 1e-9)


@dataclass(frozen=True)
class _Steps:
    """Steps as the search reads them: standardised rewards, and prices' inputs (N, D + A)."""

    z: Tensor
    after: Tensor
    price: Tensor
    rewards: Tensor

    @classmethod
    def of(cls, z: Floats, actions: Floats, after: Floats, rewards: Floats) -> "_Steps":
        before, then, taken, paid = (torch.as_tensor(x, dtype=torch.float64) for x in (z, after, actions, rewards))
        moved = then - before
        moved = moved / torch.from_numpy(spread_of(moved.numpy()))
        paid = (paid - paid.mean()) / float(spread_of(paid[:, None].numpy())[0])
        return cls(before, then, torch.cat([moved, taken], 1), paid)


def _search(steps: _Steps, plan: SearchPlan, generator: torch.Generator) -> tuple[float, Tensor]:
    """Negative log posterior and directions (D, J), their length the inverse of a length scale."""
    size, kind = steps.z.shape[1], steps.z.dtype
    directions = 0.5 * torch.randn(size, plan.num_directions, generator=generator, dtype=kind)
    signal = torch.full((plan.num_directions,), math.log(2.0), dtype=kind)
    length = torch.full((steps.price.shape[1],), math.log(5.0), dtype=kind)
    price, noise = (torch.tensor(math.log(0.3), dtype=kind) for _ in range(2))
    parameters = [p.requires_grad_() for p in (directions, signal, length, price, noise)]
    optimiser = torch.optim.Adam(parameters, lr=0.1)
    cost = torch.zeros((), dtype=kind)
    for _ in range(plan.steps):
        covariance = _covariance(steps, directions, signal, length, price)
        covariance = covariance + ((2 * noise).exp() + JITTER) * torch.eye(len(steps.z), dtype=kind)
        factor = torch.linalg.cholesky(covariance)
        solved = torch.cholesky_solve(steps.rewards[:, None], factor)[:, 0]
        prior = (directions / 1.5).square().sum() + (signal - math.log(2.0)).square().sum()
        prior = prior + (length - math.log(5.0)).square().sum()
        cost = 0.5 * (steps.rewards * solved).sum() + factor.diagonal().log().sum() + 0.5 * prior
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
    return float(cost.detach()), directions.detach()


def _covariance(steps: _Steps, directions: Tensor, signal: Tensor, length: Tensor, price: Tensor) -> Tensor:
    """(N, N) of φ(z') − φ(z) + e."""
    count = len(steps.z)
    along = torch.cat([steps.after, steps.z]) @ directions  # (2N, J)
    kernel = (-0.5 * (along[:, None] - along[None]).square()).exp() @ (2 * signal).exp()
    gained = kernel[:count, :count] - kernel[:count, count:] - kernel[count:, :count] + kernel[count:, count:]
    inputs = steps.price * (-length).exp()
    squares = inputs.square().sum(1)
    distance = (squares[:, None] + squares[None] - 2 * inputs @ inputs.T).clamp(min=0)
    return gained + (2 * price).exp() * (-0.5 * distance).exp()
