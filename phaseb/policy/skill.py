"""How far a world model may be followed: its forecasts of recorded episodes, under their own actions, and the truth.

A model can be sure and wrong: members that agree on flipped rewards or on a frozen dimension disagree about nothing.
So before a policy is asked what it would do in the model, the model is asked what operators did. The forecast skill is
that of meteorology, 1 - MSE / MSE of the naive forecast; naive is "nothing moves" for latents, the mean for rewards.

Shapes: N windows, T steps, D latent dimensions, A action dimensions.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.config.policy import AugmentationConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.seeding import numpy_generator, torch_generator

MOST_WINDOWS = 4000
RESAMPLES = 200


class Imagined(Protocol):
    """Rollouts as a world model gives them."""

    @property
    def z(self) -> Tensor:
        """(N, T+1, D)."""
        ...

    @property
    def actions(self) -> Tensor:
        """(N, T, A)."""
        ...

    @property
    def rewards(self) -> Tensor:
        """(N, T)."""
        ...

    @property
    def terminals(self) -> Tensor:
        """(N, T)."""
        ...

    @property
    def uncertainty(self) -> Tensor:
        """(N, T) disagreement of the ensemble."""
        ...


class Imagine(Protocol):
    """The world model: starts (N, D), a policy called with (latents, step), steps, randomness -> rollouts."""

    def __call__(
        self, z0: Tensor, actions: Callable[[Tensor, int], Tensor], horizon: int, generator: torch.Generator, /
    ) -> Imagined: ...


class Forecasts:
    """The model's rollouts from recorded states under recorded actions, beside what was recorded.

    Attributes:
        truth: (N, T+1, D) recorded latents.
        rewards: (N, T) recorded.
        valid: (N, T) true where the episode goes that far.
        rolled: the model's.
        starts: N of (episode's name, step).
    """

    def __init__(self, imagine: Imagine, recorded: Trajectories, horizon: int, seed: int) -> None:
        episodes, steps = np.nonzero(recorded.mask)
        chosen = numpy_generator(seed, "forecast starts").permutation(len(episodes))[:MOST_WINDOWS]
        episodes, steps = episodes[chosen], steps[chosen]
        self.starts = [(recorded.ids[e], int(t)) for e, t in zip(episodes, steps, strict=True)]
        window = steps[:, None] + np.arange(horizon + 1)
        self.valid = window[:, :-1] < recorded.lengths[episodes][:, None]
        inside = np.minimum(window, recorded.z.shape[1] - 1)
        last = np.minimum(window[:, :-1], recorded.actions.shape[1] - 1)
        self.episodes, self.seed = episodes, seed
        self.truth = recorded.z[episodes[:, None], inside]
        self.rewards = recorded.rewards[episodes[:, None], last]
        actions = torch.from_numpy(recorded.actions[episodes[:, None], last])
        starts = torch.from_numpy(self.truth[:, 0])
        self.rolled = imagine(starts, lambda z, t: actions[:, t].to(z), horizon, torch_generator(seed, "forecast"))

    def disagreement_limits(self, quantile: float) -> NDArray[np.float64]:
        """(T,) quantile of the model's disagreement after each step where the actions are the data's own.

        A limit is at most the largest finite disagreement: what nothing is known of (an infinite one) is always beyond,
        however often recorded actions lead there.
        """
        uncertainty = self.rolled.uncertainty.detach().cpu().numpy().astype(np.float64)
        limits = np.full(uncertainty.shape[1], -np.inf)
        for t, (column, here) in enumerate(zip(uncertainty.T, self.valid.T, strict=True)):
            known = column[here & np.isfinite(column)]
            if known.size:
                limits[t] = np.quantile(column[here].clip(max=known.max()), quantile)
        return limits

    def skills(
        self, tolerance: float, limits: NDArray[np.floating] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Skill after each step, (T,): `mean` and `worst` over latent dimensions, `reward`, and `reward_surely`, which
        19 of 20 resamples of the episodes exceed: a few episodes hold few events, and a skill by luck is none.

        With `limits`, of those windows alone that are not cut by them: it is these that would be used.
        Errors below `tolerance` (in standard deviations of the latent) are none: sensors are not foreseen.
        """
        counted = self.valid if limits is None else self.valid & self._uncut(limits)
        predicted = self.rolled.z.detach().cpu().numpy().astype(np.float64)
        error = np.square(predicted[:, 1:] - self.truth[:, 1:])
        naive = np.square(self.truth[:, 1:] - self.truth[:, :1])
        floor = tolerance**2
        with np.errstate(invalid="ignore", divide="ignore"):  # a step without windows has no skill, which is no skill
            dims = 1 - np.maximum(_mean(error, counted) - floor, 0) / np.maximum(_mean(naive, counted), floor)
            reward, surely = self._reward_skill(counted)
            return {"mean": dims.mean(1), "worst": dims.min(1), "reward": reward, "reward_surely": surely}

    def _reward_skill(self, counted: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        told = self.rolled.rewards.detach().cpu().numpy().astype(np.float64)
        naive = self.rewards[counted].mean() if counted.any() else 0.0
        error, spread = np.square(told - self.rewards), np.square(self.rewards - naive)
        skill = 1 - _mean(error, counted) / np.maximum(_mean(spread, counted), 1e-12)
        return np.asarray(skill), self._surely(np.where(counted, error, 0.0), np.where(counted, spread, 0.0))

    def _surely(self, error: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T,) the 5 % quantile of the skill over resamples of the episodes, of errors and spreads (N, T)."""
        _, of = np.unique(self.episodes, return_inverse=True)
        sums = np.zeros((2, of.max() + 1 if len(of) else 1, error.shape[1]))
        for total, values in zip(sums, (error, spread), strict=True):
            np.add.at(total, of, values)
        count, g = sums.shape[1], numpy_generator(self.seed, "resampled episodes")
        drawn = g.multinomial(count, np.full(count, 1 / count), RESAMPLES)
        errors, spreads = drawn @ sums
        return np.asarray(np.quantile(1 - errors / np.maximum(spreads, 1e-12), 0.05, axis=0))

    def _uncut(self, limits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(N, T) true up to the step at which disagreement first passes its limit."""
        uncertainty = self.rolled.uncertainty.detach().cpu().numpy()
        return np.logical_and.accumulate(uncertainty <= limits[None], axis=1)


def _mean(values: NDArray[np.floating], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the counted windows of each step, (T, ...); infinite where there is none."""
    weights = counted.reshape(*counted.shape, *[1] * (values.ndim - 2)).astype(np.float64)
    count = weights.sum(0)
    return np.where(count > 0, (values * weights).sum(0) / np.maximum(count, 1), np.inf)


def followed_steps(config: AugmentationConfig, skills: dict[str, NDArray[np.float64]]) -> int:
    """How many steps the model may be followed: up to the first at which any skill is too low or not a number.

    None at all where the first reward is told badly: a poor model's skill, too, fades slowly once it is low.
    """
    first = config.first_reward_factor * config.min_reward_skill
    if not skills["reward_surely"][0] >= first:
        return 0
    good = (
        (skills["mean"] >= config.min_skill) & (skills["reward"] >= config.min_reward_skill)
        & (skills["worst"] >= config.min_worst_skill)
    )  # fmt: skip
    return len(good) if good.all() else int(np.argmin(good))
