"""Returns of policies in Gaussian processes that are fitted for this alone, each to episodes drawn with replacement.

These members see other draws than the generator that policies were trained in. Their spread shows what the recorded
episodes leave open. What they have wrong in common shows on windows of the episodes that a member was not fitted to.
(Windows are short because recorded actions do not answer what a model does. On the cell, whole episodes replay at a
third of their return, and policies play at all of it.)

Legend: W starts or windows, H steps, D latent dimensions, A action dimensions, P policies, M members.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.dynamics import GPConfig
from phaseb.dynamics.branches import Branches, Draws, draw
from phaseb.dynamics.evidence import divergence, forecast_score, recorded_branches
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.dynamics.rollout import Policy
from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.seeding import derive_seed, numpy_generator, torch_generator

NUM_STARTS = 100
"""Most starts that each policy is played from."""
WINDOW_STEPS = 8
"""Steps of a held-out window."""
LEAST_SKILL = {"states": 0.9, "rewards": 0.5}
"""Least forecast skill on held-out windows. Errors of states grow over the steps of a return, so few are allowed: the
cell reaches 0.97, a hopping and a running robot 0.74 and 0.81."""
MIN_WINDOWS = 20
"""Fewest held-out windows that skill is measured on."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOutError:
    """What one member has wrong on the episodes that it was not fitted to.

    Attributes:
        windows: number of them.
        skill: of states and of rewards, see `ForecastScore`; NaN where there is no window.
        bias: mean error of the reward of a step.
    """

    windows: int
    skill: tuple[float, float]
    bias: float


@dataclass(frozen=True)
class ModelReturns:
    """Returns of policies by all members.

    Attributes:
        values: (P, M) mean return over the starts; NaN where a rollout diverged.
        errors: of each member.
        horizon: steps that a return sums.
    """

    values: Array
    errors: tuple[HeldOutError, ...]
    horizon: int

    @property
    def bias(self) -> float:
        """How far returns may be off by what all members have wrong: their mean error of a step, for H steps."""
        known = [abs(one.bias) for one in self.errors if one.windows]
        return float(np.mean(known)) * self.horizon if known else float("nan")

    @property
    def skill(self) -> tuple[float, float]:
        """Mean forecast skill of states and of rewards; NaN where there is no window."""
        known = [one.skill for one in self.errors if one.windows]
        state, reward = np.mean(known, axis=0) if known else (np.nan, np.nan)
        return float(state), float(reward)

    @property
    def refused(self) -> str:
        """Why decisions cannot take these returns; empty where they can."""
        windows = sum(one.windows for one in self.errors)
        if windows < MIN_WINDOWS:
            return f"{windows} held-out windows are too few, {MIN_WINDOWS} are needed"
        if not np.isfinite(self.values).all():
            return "rollouts of a policy diverge"
        for (name, least), skill in zip(LEAST_SKILL.items(), self.skill, strict=True):
            if not skill >= least:
                return f"the forecast skill of held-out {name} is {skill:.2f}, {least:g} is needed"
        return ""

    def to_json(self) -> dict[str, float | str]:
        """What a decision records."""
        state, reward = self.skill
        return {
            "state_skill": state,
            "reward_skill": reward,
            "bias": self.bias,
            "horizon": self.horizon,
            "refused": self.refused,
        }


def member_returns(
    config: GPConfig, recorded: Trajectories, policies: Sequence[Policy], horizon: int, seed: int, member: int
) -> tuple[Array, HeldOutError]:
    """Mean returns (P,) of policies in one member, and its error.

    Args:
        recorded: N episodes. A member is fitted to N of them drawn with replacement; the rest are held out.
        policies: each acts on latents (W, D).
        horizon: H.
        member: its number.
    """
    own = derive_seed(seed, "model returns", member)
    drawn = numpy_generator(own, "episodes").integers(0, len(recorded), len(recorded))
    model = GPDynamics.fit(config, recorded.select(drawn), own)
    starts = torch.from_numpy(start_states(recorded, horizon, derive_seed(seed, "model returns")))
    values = []
    for policy in policies:
        made = model.rollout(starts, policy, horizon, torch_generator(own, "play"))
        lost = divergence(made.z.numpy(), made.rewards.numpy())
        inside = np.arange(horizon) < made.lengths[:, None]
        returns = np.where(inside, made.rewards.numpy(), 0.0).sum(1, dtype=np.float64)
        values.append(float("nan") if lost else float(returns.mean()))
    left = np.setdiff1d(np.arange(len(recorded)), drawn)
    return np.array(values), held_out_error(model, recorded.select(left), min(WINDOW_STEPS, horizon), own)


def start_states(recorded: Trajectories, horizon: int, seed: int) -> NDArray[np.float32]:
    """(W, D) states at the start of episodes and every `horizon` steps of longer ones; NUM_STARTS of more, drawn."""
    episodes, steps = np.nonzero(recorded.mask)
    places = np.flatnonzero(steps % horizon == 0)
    places = numpy_generator(seed, "starts").permutation(places)[:NUM_STARTS]
    return recorded.z[episodes[places], steps[places]]


def held_out_error(model: GPDynamics, held_out: Trajectories, steps: int, seed: int) -> HeldOutError:
    """The error of a member on windows of episodes that it was not fitted to."""
    if not len(held_out):
        return HeldOutError(0, (float("nan"), float("nan")), float("nan"))
    windows, episodes = recorded_branches(held_out, steps, seed)
    draws = draw(model.rollout, windows, seed)
    score = forecast_score(windows, episodes, draws)
    return HeldOutError(len(windows), (score.state, score.reward), _reward_bias(windows, draws))


def _reward_bias(windows: Branches, draws: Draws) -> float:
    """Mean over valid steps of the reward that draws promise, less the recorded one."""
    error = draws.rewards.mean(0, dtype=np.float64) - windows.rewards
    return float(error[windows.valid].mean())
