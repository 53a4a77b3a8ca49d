"""Validation of a generator on held-out episodes: forecast skill, the horizon it allows, and the scale of uncertainty.

Uncertainty alone is no evidence: members that agree on flipped rewards or on a frozen dimension have none. So every
generator first forecasts recorded episodes under their own actions. The forecast skill is that of meteorology,
1 - MSE / MSE of the naive forecast; naive is "nothing moves" for latents, the mean for rewards. The MSE is that of the
mean forecast: noise that a generator draws is no error. Two draws a, b estimate it without bias, because
E[(a - truth)(b - truth)] = (E[a] - truth)^2. A single draw may have twice the MSE that the mean may have: it has, where
the noise is as large as the error of the mean.

Shapes: N windows, T steps, D latent dimensions, A action dimensions.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.policy import AugmentationConfig
from phaseb.dynamics.rollout import Policy, Rollout, RolloutFn
from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.seeding import numpy_generator, torch_generator

FIRST_REWARD_FACTOR = 3.0
"""Times min_reward_skill that rewards must be foretold at the first step, where nothing has had time to go wrong,
in 19 of 20 resamples of the episodes: a model that fails there is not followed at all."""
SKILLS = {
    "mean": "its forecast of latents",
    "worst": "its forecast of the worst latent",
    "drawn": "a single draw of latents",
    "reward": "its forecast of rewards",
    "reward_surely": "its forecast of rewards, in 19 of 20 resamples of the episodes,",
}
"""What each skill is of, see `ForecastSkill.skills`."""
SKILL_TOLERANCE = 0.1
"""Forecast error, in latent standard deviations, that is none."""

MOST_WINDOWS = 4000
LEAST_SPREAD = 1e-12  # variance of rewards, relative to their mean square: less is none
RESAMPLES = 200


class ForecastSkill:
    """A generator's rollouts from recorded states under recorded actions, beside what was recorded.

    Attributes:
        truth: (N, T+1, D) recorded latents.
        rewards: (N, T) recorded.
        valid: (N, T) true where the episode goes that far.
        rolled: the model's; `again` with other draws.
        starts: N of (episode's name, step).
    """

    def __init__(self, rollout: RolloutFn, recorded: Trajectories, horizon: int, seed: int) -> None:
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
        roll = functools.partial(rollout, starts, lambda z, t: actions[:, t].to(z), horizon)
        self.rolled: Rollout = roll(torch_generator(seed, "forecast"))
        self._roll_again = functools.partial(roll, torch_generator(seed, "forecast", "again"))

    @functools.cached_property
    def again(self) -> Rollout:
        """The same forecasts with other draws."""
        return self._roll_again()

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

    def uncertainty_quantile(self, quantile: float) -> float:
        """Quantile of the uncertainty over all valid steps; at most the largest finite one, 0 where none is finite."""
        return _finite_quantile(self.rolled.uncertainty.cpu().numpy()[self.valid], quantile)

    def skills(self, tolerance: float, limits: NDArray[np.floating] | None = None) -> dict[str, NDArray[np.float64]]:
        """Skill after each step, (T,).

        `mean` and `worst` over latent dimensions; `drawn`, the mean of a single draw, where no dimension counts less
        than -1; `reward`, and `reward_surely`, which 19 of 20 resamples of the episodes exceed: a few episodes hold few
        events, and a skill by luck is none.

        With `limits`, of those windows alone that are not cut by them: it is these that would be used.
        Errors below `tolerance` (in standard deviations of the latent) are none: sensors are not foreseen.
        """
        counted = self.valid if limits is None else self.valid & self._uncut(limits)
        apart = [rolled.z.detach().cpu().numpy().astype(np.float64) - self.truth for rolled in self._both()]
        error = (apart[0] * apart[1])[:, 1:]
        naive = np.square(self.truth[:, 1:] - self.truth[:, :1])
        floor = tolerance**2
        with np.errstate(invalid="ignore", divide="ignore"):  # a step without windows has no skill, which is no skill
            least = np.maximum(_mean(naive, counted), floor)
            dims, drawn = (
                1 - np.maximum(_mean(squares, counted) - floor, 0) / least
                for squares in (error, np.square(apart[0][:, 1:]))
            )
            latents = {"mean": dims.mean(1), "worst": dims.min(1), "drawn": drawn.clip(-1).mean(1)}
            reward, surely = self._reward_skill(counted)
            return {**latents, "reward": reward, "reward_surely": surely}

    def _reward_skill(self, counted: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        apart = [rolled.rewards.detach().cpu().numpy().astype(np.float64) - self.rewards for rolled in self._both()]
        naive = self.rewards[counted].mean() if counted.any() else 0.0
        error, spread = apart[0] * apart[1], np.square(self.rewards - naive)
        least = LEAST_SPREAD * float(np.square(self.rewards.astype(np.float64)).mean()) + np.finfo(np.float64).tiny
        skill = 1 - _mean(error, counted) / np.maximum(_mean(spread, counted), least)
        error, spread = (np.where(counted, x, 0.0) for x in (error, spread))
        return np.asarray(skill), self._lower_bound(error, spread, least)

    def _lower_bound(
        self, error: NDArray[np.float64], spread: NDArray[np.float64], least: float
    ) -> NDArray[np.float64]:
        """(T,) the 5 % quantile of the skill over resamples of the episodes, of errors and spreads (N, T)."""
        _, of = np.unique(self.episodes, return_inverse=True)
        sums = np.zeros((2, of.max() + 1 if len(of) else 1, error.shape[1]))
        for total, values in zip(sums, (error, spread), strict=True):
            np.add.at(total, of, values)
        count, g = sums.shape[1], numpy_generator(self.seed, "resampled episodes")
        drawn = g.multinomial(count, np.full(count, 1 / count), RESAMPLES)
        errors, spreads = drawn @ sums
        return np.asarray(np.quantile(1 - errors / np.maximum(spreads, least), 0.05, axis=0))

    def _uncut(self, limits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(N, T) true up to the step at which disagreement first passes its limit in either draw."""
        uncertainty = np.maximum(*(rolled.uncertainty.detach().cpu().numpy() for rolled in self._both()))
        return np.asarray(np.logical_and.accumulate(uncertainty <= limits[None], axis=1))

    def _both(self) -> tuple[Rollout, Rollout]:
        return self.rolled, self.again


def _mean(values: NDArray[np.floating], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the counted windows of each step, (T, ...); infinite where there is none."""
    weights = counted.reshape(*counted.shape, *[1] * (values.ndim - 2)).astype(np.float64)
    count = weights.sum(0)
    return np.where(count > 0, (values * weights).sum(0) / np.maximum(count, 1), np.inf)


def trusted_horizon(config: AugmentationConfig, skills: dict[str, NDArray[np.float64]]) -> int:
    """Steps that the generator is trusted for: those before the first at which any skill is too low or not a number.

    None at all where the first reward is predicted badly: a poor model's skill, too, fades slowly once it is low.
    """
    if shortfall(config, skills):
        return 0
    good = np.all([skills[name] >= least for name, least in _least_skills(config).items()], axis=0)
    return len(good) if good.all() else int(np.argmin(good))


def shortfall(config: AugmentationConfig, skills: dict[str, NDArray[np.float64]]) -> str:
    """The first skill that is too low at the first step, with its figure; empty where none is."""
    least = _least_skills(config)
    if config.min_reward_skill is not None:
        least["reward_surely"] = FIRST_REWARD_FACTOR * config.min_reward_skill
    for name, bound in least.items():
        if not skills[name][0] >= bound:
            return f"{SKILLS[name]} has a skill of {skills[name][0]:.2f}, {bound:.2g} is needed"
    return ""


def _least_skills(config: AugmentationConfig) -> dict[str, float]:
    """The least skill of every step, by name."""
    least = {"mean": config.min_skill, "worst": config.min_skill / 5, "drawn": 2 * config.min_skill - 1}
    return least if config.min_reward_skill is None else {**least, "reward": config.min_reward_skill}


@dataclass(frozen=True)
class Validation:
    """What a generator may be used for, as numbers.

    Attributes:
        horizon: steps that it is trusted for; 0 where it is not.
        limits: (T,) uncertainty after each step at which a rollout is cut.
        skills: (T,) forecast skill after each step, by name, see `ForecastSkill.skills`.
        forecasts: the rollouts that were measured.
    """

    horizon: int
    limits: NDArray[np.float64]
    skills: dict[str, NDArray[np.float64]]
    forecasts: ForecastSkill


def validate(
    rollout: RolloutFn, recorded: Trajectories, config: AugmentationConfig, horizon: int, seed: int
) -> Validation:
    """Measure a generator on recorded episodes that it was not fitted to, over `horizon` steps."""
    forecasts = ForecastSkill(rollout, recorded, horizon, seed)
    limits = forecasts.disagreement_limits(config.cut_quantile)
    skills = forecasts.skills(SKILL_TOLERANCE, limits)
    return Validation(trusted_horizon(config, skills), limits, skills, forecasts)


def branched_uncertainty_scale(
    rollout: RolloutFn, recorded: Trajectories, horizon: int, quantile: float, seed: int
) -> float:
    """Quantile of the uncertainty of rollouts from all recorded states under recorded actions, over `horizon` steps."""
    return ForecastSkill(rollout, recorded, horizon, seed).uncertainty_quantile(quantile)


def stored_uncertainty_scale(
    rollout: RolloutFn, starts: torch.Tensor, actions: torch.Tensor | Policy, horizon: int, quantile: float, seed: int
) -> float:
    """Quantile of the uncertainty of rollouts of whole episodes, from their starts (N, D)."""
    made = rollout(starts, actions, horizon, torch.Generator().manual_seed(seed))
    return _finite_quantile(made.uncertainty.cpu().numpy(), quantile)


def _finite_quantile(uncertainty: NDArray[np.floating], quantile: float) -> float:
    """The quantile, at most the largest finite value: what nothing is known of is beyond any scale."""
    known = uncertainty[np.isfinite(uncertainty)]
    return float(np.quantile(uncertainty.clip(max=known.max()), quantile)) if known.size else 0.0
