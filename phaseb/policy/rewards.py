"""Rewards in units of their own: neither their unit nor a constant in them changes what a learner learns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.resolution import is_constant
from phaseb.episodes.trajectories import Trajectories

REWARD_STD = 0.23
"""Standard deviation to which rewards are scaled."""


@dataclass(frozen=True)
class RewardNormalizer:
    """scale · (r − baseline · (1 − discount)): every value is learned less `baseline`, in units of 1 / `scale`.

    With Q'(s, a) = scale · (Q(s, a) − baseline), Bellman's equation Q = r + discount · V becomes
    Q' = scale · (r − baseline · (1 − discount)) + discount · V'. So the task stays the same, also across terminal
    steps (discount 0) and for n-step returns (discount γⁿ): no constant is added to the rewards of a task that ends.

    Attributes:
        scale: positive factor on rewards and values.
        baseline: mean value of the recorded states, in the rewards' own unit.
    """

    scale: float = 1.0
    baseline: float = 0.0

    @classmethod
    def fit(cls, real: Trajectories, discount: float, std: float = REWARD_STD) -> "RewardNormalizer":
        """The normalizer of real episodes: rewards of standard deviation `std`, values around zero.

        Rewards that never change are divided by their size; rewards of zero stay.
        """
        rewards = real.rewards[real.mask].astype(np.float64)
        if not len(rewards):
            return cls()
        size = abs(rewards.mean()) if is_constant(real.rewards[real.mask][:, None])[0] else rewards.std()
        return cls(std / float(size) if size > 0 else 1.0, mean_value(real, discount))

    def __call__(self, rewards: NDArray[np.floating], discounts: NDArray[np.floating]) -> NDArray[np.float32]:
        """Normalised rewards of rows with these discounts (0 at a terminal), any shape."""
        centred = rewards.astype(np.float64) - self.baseline * (1.0 - discounts.astype(np.float64))
        return (self.scale * centred).astype(np.float32)


def mean_value(real: Trajectories, discount: float) -> float:
    """Mean discounted return from the recorded steps on.

    What follows an episode that was cut counts as the mean itself, so adding k to the rewards of a task that never
    ends adds k / (1 − discount).
    """
    returns, ahead = np.zeros_like(real.rewards, np.float64), np.zeros_like(real.rewards, np.float64)
    mask = real.mask
    total, open_ended = np.zeros(len(real)), np.ones(len(real))
    for t in reversed(range(mask.shape[1])):
        here = mask[:, t]
        alive = 1.0 - (real.terminals[:, t] > 0.5)
        total = np.where(here, real.rewards[:, t] + discount * alive * total, total)
        open_ended = np.where(here, discount * alive * open_ended, open_ended)
        returns[:, t], ahead[:, t] = total, open_ended
    return float(returns[mask].mean() / (1.0 - ahead[mask].mean()))
