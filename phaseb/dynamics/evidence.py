"""Evidence about a generator as policies use it: a few steps from held-out states, no action known in advance.

Legend: N windows, H steps, D latent dimensions, M draws.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.dynamics.branches import Branches, Draws, crps
from phaseb.episodes.trajectories import Trajectories
from phaseb.episodes.windows import window_index
from phaseb.runtime.seeding import numpy_generator

LARGEST_LATENT = 100.0
"""Standard deviations beyond which a rollout has diverged."""
NUM_WINDOWS = 150
RESAMPLES = 1000
LEAST_SPREAD = 1e-9

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ForecastScore:
    """Skill of probabilistic forecasts of recorded windows, 1 - CRPS / CRPS of a naive forecast.

    The naive forecast is "nothing moves" for latents, and the mean recorded reward for rewards.

    Attributes:
        state, reward: skill over all windows and steps.
        by_window: (N, 4) sums that the skills are ratios of: errors and naive errors of state and reward.
        episodes: (N,) the episode of each window.
        rewards_count: whether what is compared has rewards.
    """

    state: float
    reward: float
    by_window: Array
    episodes: NDArray[np.int64]
    rewards_count: bool = True

    @property
    def value(self) -> float:
        """What generators are compared by: the mean of both skills, or that of state where rewards do not count."""
        return float(self.values(self.by_window.sum(0)))

    def values(self, sums: Array) -> Array:
        """The same of other sums (4, ...), such as of resampled episodes."""
        state, reward = _skills(sums)
        return np.asarray((state + reward) / 2 if self.rewards_count else state)


def recorded_branches(recorded: Trajectories, horizon: int, seed: int) -> tuple[Branches, NDArray[np.int64]]:
    """Recorded windows of `horizon` steps, evenly drawn over all steps, and the episode of each."""
    episodes, steps = np.nonzero(recorded.mask)
    chosen = numpy_generator(seed, "evidence windows").permutation(len(episodes))[:NUM_WINDOWS]
    episodes, steps = episodes[chosen], steps[chosen]
    states, taken = window_index(recorded, episodes, steps, horizon)
    inside = steps[:, None] + np.arange(horizon) < recorded.lengths[episodes][:, None]
    branches = Branches(
        recorded.z[states], recorded.actions[taken], recorded.rewards[taken], recorded.terminals[taken], inside
    )
    return branches, episodes.astype(np.int64)


def divergence(z: NDArray[np.floating], rewards: NDArray[np.floating]) -> str:
    """Why rollouts with latents (..., H+1, D) and rewards (..., H) are of no use; empty where nothing is wrong."""
    if not (np.isfinite(z).all() and np.isfinite(rewards).all()):
        return "its rollouts diverge to NaN or Inf"
    if np.abs(z).max() > LARGEST_LATENT:
        return f"its rollouts diverge, beyond {LARGEST_LATENT:g} standard deviations in {rewards.shape[-1]} steps"
    return ""


def failure(draws: Draws) -> str:
    """Why draws of a generator can be of no use, whatever was recorded; empty where nothing is wrong."""
    if diverged := divergence(draws.z, draws.rewards):
        return diverged
    if np.ptp(draws.z, axis=2).max() < LEAST_SPREAD:
        return "its rollouts are constant"
    return ""


def forecast_score(
    recorded: Branches, episodes: NDArray[np.int64], draws: Draws, rewards_count: bool = True
) -> ForecastScore:
    """Score draws (M, N, H) against the recorded windows that they start from."""
    truth, start = recorded.z[:, 1:].astype(np.float64), recorded.z[:, :1].astype(np.float64)
    error, naive = crps(truth, draws.z[:, :, 1:].astype(np.float64)).mean(-1), np.abs(truth - start).mean(-1)
    rewards = recorded.rewards.astype(np.float64)
    mean = rewards[recorded.valid].mean() if recorded.valid.any() else 0.0
    paid, plain = crps(rewards, draws.rewards.astype(np.float64)), np.abs(rewards - mean)
    by_window = np.stack([np.where(recorded.valid, x, 0.0).sum(1) for x in (error, naive, paid, plain)], 1)
    state, reward = map(float, _skills(by_window.sum(0)))
    return ForecastScore(state, reward, by_window, episodes, rewards_count)


def difference(one: ForecastScore, other: ForecastScore, seed: int) -> tuple[float, float, float]:
    """How much better `one` is than `other`, with its 95 % interval over resampled episodes."""
    _, of = np.unique(one.episodes, return_inverse=True)
    sums = np.zeros((2, of.max() + 1, 4))
    for total, score in zip(sums, (one, other), strict=True):
        np.add.at(total, of, score.by_window)
    count = sums.shape[1]
    times = numpy_generator(seed, "evidence").multinomial(count, np.full(count, 1 / count), RESAMPLES)
    values = [score.values((times @ total).T) for total, score in zip(sums, (one, other), strict=True)]
    low, high = np.quantile(values[0] - values[1], [0.025, 0.975])
    return one.value - other.value, float(low), float(high)


def _skills(sums: Array) -> tuple[Array, Array]:
    """Skills of state and reward from sums (4, ...)."""
    error, naive, paid, plain = sums
    return 1 - error / np.maximum(naive, LEAST_SPREAD), 1 - paid / np.maximum(plain, LEAST_SPREAD)
