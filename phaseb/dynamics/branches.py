"""Branch tests: what follows a state under given actions, in truth and in repeated draws of a generator.

Legend: N branches, H steps, D latent dimensions, A action dimensions, M draws.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.dynamics.rollout import RolloutFn
from phaseb.runtime.seeding import torch_generator

NUM_DRAWS = 19
"""Draws of each branch. If truth and draws are alike, the truth is equally likely at each of the M + 1 ranks among
them: between the smallest and the largest draw with probability 18/20, between the 5th and the 15th with 10/20."""
HALF = (4, 14)
"""Order statistics of the 50 % interval."""
LEAST_SPREAD = 1e-6

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Branches:
    """What followed N states.

    Attributes:
        z: (N, H+1, D) latents, the start included.
        actions: (N, H, A).
        rewards: (N, H).
        ends: (N, H), 1 where the task ended after the step.
        valid: (N, H) false behind the end of the episode.
    """

    z: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    ends: NDArray[np.float32]
    valid: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.z)

    @property
    def horizon(self) -> int:
        return self.rewards.shape[1]


@dataclass(frozen=True)
class Draws:
    """Rollouts of a generator: z (M, N, H+1, D), rewards and ends (M, N, H)."""

    z: NDArray[np.float32]
    rewards: NDArray[np.float32]
    ends: NDArray[np.float32]


def draw(rollout: RolloutFn, branches: Branches, seed: int, num_draws: int = NUM_DRAWS) -> Draws:
    """Roll each branch out `num_draws` times. The generator reads no action ahead of its step."""
    actions = torch.from_numpy(branches.actions).repeat(num_draws, 1, 1)
    starts = torch.from_numpy(branches.z[:, 0]).repeat(num_draws, 1)
    made = rollout(starts, lambda z, t: actions[:, t].to(z), branches.horizon, torch_generator(seed, "branches"))
    shape = (num_draws, len(branches), -1)
    z = made.z.cpu().numpy().reshape(*shape[:2], branches.horizon + 1, -1)
    return Draws(z, *(x.cpu().numpy().reshape(shape) for x in (made.rewards, made.terminals)))


def branch_numbers(branches: Branches, draws: Draws) -> dict[str, list[float]]:
    """Errors and coverage after each step.

    Returns:
        `nrmse`: RMSE of the mean draw, by each dimension's σ (latents are standardised). `persistence`: the same of the
        start, held. `reward_nrmse`: RMSE of the mean reward, by the standard deviation of the true rewards.
        `coverage_50`, `coverage_90`: share of latents and branches whose truth lies in the interval of the draws.
    """
    truth, made = branches.z[:, 1:].astype(np.float64), draws.z[:, :, 1:].astype(np.float64)
    valid = branches.valid
    nrmse = _root(_mean(np.square(made.mean(0) - truth).mean(-1), valid))
    held = _root(_mean(np.square(truth - branches.z[:, :1]).mean(-1), valid))
    spread = max(float(branches.rewards[valid].std()) if valid.any() else 0.0, LEAST_SPREAD)
    reward = _root(_mean(np.square(draws.rewards.mean(0, dtype=np.float64) - branches.rewards), valid)) / spread
    ordered = np.sort(made, axis=0)
    covered = {
        name: _mean(_inside(ordered, truth, low, high).mean(-1), valid)
        for name, (low, high) in {"coverage_50": HALF, "coverage_90": (0, NUM_DRAWS - 1)}.items()
    }
    numbers = {"nrmse": nrmse, "persistence": held, "reward_nrmse": reward, **covered}
    return {name: values.tolist() for name, values in numbers.items()}


def event_numbers(true: NDArray[np.bool_], drawn: NDArray[np.bool_], valid: NDArray[np.bool_]) -> dict[str, float]:
    """Precision and recall of "an event happens on the branch", of events (N, H) and those of draws (M, N, H).

    Each draw is a forecast. NaN where no event happens, or none is forecast.
    """
    happened, said = (true & valid).any(1), (drawn & valid).any(2)
    hits = float((said & happened).mean(0).sum())
    forecast, real = float(said.mean(0).sum()), float(happened.sum())
    return {
        "event_precision": hits / forecast if forecast else float("nan"),
        "event_recall": hits / real if real else float("nan"),
        "events": real,
    }


def crps(truth: Array, draws: Array) -> Array:
    """Continuous ranked probability score of M draws (M, ...) of each true value (...); smaller is better.

    The estimator is the fair one (Ferro 2014): unbiased whatever the number of draws.
    """
    count = len(draws)
    error = np.abs(draws - truth[None]).mean(0)
    weights = 2 * np.arange(1, count + 1) - count - 1  # sum over pairs of |x - y|, of sorted draws
    pairs = np.tensordot(weights, np.sort(draws, axis=0), axes=1)
    return np.asarray(error - pairs / (count * (count - 1)))


def _inside(ordered: Array, truth: Array, low: int, high: int) -> NDArray[np.bool_]:
    return np.asarray((truth >= ordered[low]) & (truth <= ordered[high]))


def _mean(values: Array, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(H,) mean over the branches that go that far; NaN where none does."""
    count = valid.sum(0)
    total = np.where(valid, values, 0.0).sum(0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(values))
