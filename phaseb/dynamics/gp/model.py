"""Gaussian-process dynamics: one step at a time, fitted to few transitions, with a standard deviation of what it says.

A step is predicted in order: the discrete outcome (levels of the jumping dimensions, end of the task), the continuous
dimensions given the outcome, the reward given both. Each is a Gaussian process over the transitions of the same
situation: the levels before the step and the binary actions. What never varied there is certain. The prior mean of a
rare outcome's reward is the least reward recorded; every reward has a standard deviation for a lower bound.

Legend: N steps or rollouts, D latent dimensions, C continuous ones, A action dimensions, T steps of a rollout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.config.dynamics import GPConfig
from phaseb.dynamics.gp import checkpoint
from phaseb.dynamics.gp.discrete_states import DiscreteStates, plain_structure
from phaseb.dynamics.gp.gaussian_process import FitPlan, GaussianProcess
from phaseb.dynamics.gp.outcomes import InputProjection, OutcomeGP, RewardGP
from phaseb.dynamics.gp.reward_subspace import SearchPlan, find_directions
from phaseb.dynamics.rollout import Policy, Rollout, as_policy
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

RARE_SHARE = 0.15
"""Share of all steps below which what happened is rare: its reward then counts as the worst of its kind wherever
its examples do not say otherwise."""
MIN_EXAMPLES = 8
"""With fewer examples of what happened, rollouts are cut before it."""
NUM_DIRECTION_STARTS = 2
"""Searches for reward directions, of which the likeliest counts."""
MARGIN = 0.1
"""Share of its range by which a latent may leave what was seen."""

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Draws = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Of one step: uniform numbers (N,) of the outcomes, normal ones (N, C) of the continuous dimensions."""


@dataclass(frozen=True)
class StepPrediction:
    """One step of N rollouts: next z (N, D), and (N,) reward, its standard deviation, terminal, uncertainty."""

    z: Floats
    reward: NDArray[np.float64]
    reward_std: NDArray[np.float64]
    terminal: Bools
    uncertainty: NDArray[np.float64]


@dataclass
class GPDynamics:
    """The generator `gp`; the same data and seed give the same model.

    Attributes:
        basis: mean (D,), map into the model's coordinates (D, D) and back.
        states: what is discrete about a step.
        bounds: (C,) lowest and highest continuous latents of a rollout.
        least_reward: the least reward recorded: that of outcomes without examples.
        moves: process of the steps of continuous dimensions; None where there are none.
        directions: (D, J) that explain frequent rewards, by level.
        outcomes: by situation.
        rewards: by situation and outcome.
        uncertainty_scale: see `DynamicsModel`.
    """

    config: GPConfig
    basis: tuple[Floats, Floats, Floats]
    states: DiscreteStates
    bounds: tuple[Floats, Floats]
    least_reward: float
    moves: GaussianProcess | None
    directions: dict[int, NDArray[np.float64]]
    outcomes: dict[int, OutcomeGP]
    rewards: dict[tuple[int, int], RewardGP]
    latent_size: int
    action_size: int
    uncertainty_scale: float = 0.0
    lineage: dict[str, Any] = field(default_factory=dict)
    name = "gp"
    num_members = 1

    @classmethod
    def fit(cls, config: GPConfig, real: Trajectories, seed: int) -> "GPDynamics":
        """Fit to training episodes.

        Raises:
            DataError: where there is no step to learn from.
        """
        if not real.mask.any():
            raise DataError("no training step for dynamics.gp; check the splits under episodes")
        return _Fit(config, real, seed).model()

    def to_model_space(self, z: Floats) -> Floats:
        """Latents (..., D) in the model's coordinates."""
        mean, whiten, _ = self.basis
        return ((z - mean) @ whiten).astype(np.float32)

    def from_model_space(self, y: Floats) -> Floats:
        """The inverse of `to_model_space`."""
        mean, _, unwhiten = self.basis
        return (y @ unwhiten + mean).astype(np.float32)

    def step(
        self, z: Floats, actions: Floats, uniform: NDArray[np.float64] | None, noise: NDArray[np.float64] | None = None
    ) -> StepPrediction:
        """Predict what follows z (N, D) under actions (N, A).

        Args:
            z, actions: of N steps.
            uniform: (N,) in [0, 1), draws the outcomes; the likeliest ones where None.
            noise: (N, C) standard normal, draws the continuous dimensions from their predictive distribution; their
                mean where None.
        """
        s, z = self.states, self.to_model_space(z)
        situation = s.of(z, actions)
        outcome, known = self._sample_outcomes(situation, z, actions, uniform)
        after = s.with_levels(z, outcome)
        uncertainty = np.zeros(len(z))
        if self.moves is not None:
            moved, std = self.moves.predict(s.inputs(z, actions, outcome))
            if noise is not None:
                moved = moved + np.sqrt(np.square(std) + np.square(self.moves.noise.numpy())) * noise
            landed = after[:, s.continuous] + moved
            after[:, s.continuous] = np.clip(landed, *self.bounds).astype(np.float32)
            variance = np.square(std) @ np.square(self.basis[2][s.continuous])
            uncertainty = np.sqrt(variance.mean(1))
        reward, reward_std, paid = self._predict_rewards(situation, outcome, z, actions)
        known = known & paid
        uncertainty = np.where(known, uncertainty, np.inf)
        return StepPrediction(self.from_model_space(after), reward, reward_std, s.ends(outcome), uncertainty)

    def _sample_outcomes(
        self, situation: NDArray[np.int64], z: Floats, actions: Floats, uniform: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.int64], Bools]:
        """Outcomes (N,), and whether anything is known of the situation."""
        codes, rows = np.unique(situation, return_inverse=True)
        outcome = np.array([self.states.unchanged(int(code)) for code in codes], dtype=np.int64)[rows]
        known = np.zeros(len(z), bool)
        for code, model in self.outcomes.items():
            here = situation == code
            if here.any():
                outcome[here] = model.draw(z[here], actions[here], None if uniform is None else uniform[here])
                known |= here
        return outcome, known

    def _predict_rewards(
        self, situation: NDArray[np.int64], outcome: NDArray[np.int64], z: Floats, actions: Floats
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Bools]:
        """Mean reward, its standard deviation and whether there were examples of it, each (N,)."""
        reward, std, paid = np.full(len(z), self.least_reward), np.zeros(len(z)), np.zeros(len(z), bool)
        for (code, happened), model in self.rewards.items():
            here = (situation == code) & (outcome == happened)
            if here.any():
                reward[here], std[here] = model.predict(z[here], actions[here])
                paid |= here
        return reward, std, paid

    def rollout(
        self,
        z0: Tensor,
        actions: Tensor | Policy,
        horizon: int,
        generator: torch.Generator,
        lookahead: Tensor | None = None,
    ) -> Rollout:
        """Roll out `horizon` steps from z0 (N, D), see `DynamicsModel.rollout`; it reads no action ahead.

        Each step is a draw from the predictive distribution: without its noise, rollouts are less varied than the
        world, and no interval of theirs covers the truth.
        """
        draws = [self.draws(len(z0), generator) for _ in range(horizon)]
        return self._roll(z0, as_policy(actions, horizon), horizon, draws)

    def draws(self, rows: int, generator: torch.Generator) -> Draws:
        """What `step` draws from for N rows."""
        uniform = torch.rand(rows, generator=generator, dtype=torch.float64)
        noise = torch.randn(rows, len(self.states.continuous), generator=generator, dtype=torch.float64)
        return uniform.numpy(), noise.numpy()

    def _roll(
        self,
        z0: Tensor,
        policy: Policy,
        horizon: int,
        draws: Sequence[Draws] | None,
    ) -> Rollout:
        z = z0.detach().cpu().numpy().astype(np.float32)
        states, taken, steps = [z], [], []
        for t in range(horizon):
            action = policy(torch.from_numpy(z), t).detach().cpu().numpy().astype(np.float32)
            made = self.step(z, action, *((None, None) if draws is None else draws[t]))
            z = made.z.astype(np.float32)
            states.append(z)
            taken.append(action)
            steps.append(made)

        def stack(columns: list[NDArray[Any]]) -> Tensor:
            return torch.from_numpy(np.stack(columns, 1).astype(np.float32))

        return Rollout(
            z=stack(states),
            actions=stack(taken),
            rewards=stack([s.reward for s in steps]),
            reward_std=stack([s.reward_std for s in steps]),
            terminals=stack([s.terminal for s in steps]),
            uncertainty=stack([s.uncertainty for s in steps]),
        )

    def mean_rollout(self, z0: Tensor, actions: Tensor) -> Tensor:
        """(N, T+1, D) forecast from z0 (N, D): the likeliest outcome and the mean move at every step."""
        horizon = actions.shape[1]
        return self._roll(z0, as_policy(actions, horizon), horizon, None).z

    def teacher_forced(self, z: Tensor, actions: Tensor, member: int | None = None) -> Tensor:
        """(N, T, D) one-step predictions of z[:, 1:] along real z (N, T+1, D)."""
        rows, taken = z[:, :-1].flatten(0, 1).numpy(), actions.flatten(0, 1).numpy()
        return torch.from_numpy(self.step(rows, taken, None).z).view(z[:, 1:].shape)

    def save(self, store: Store) -> str:
        """Write the fitted model; returns the digest."""
        return checkpoint.save(self, store)

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> "GPDynamics":
        """The model that `save` wrote, of a checkpoint's content; it predicts the same to the bit."""
        return cls(**checkpoint.parts(tensors, meta))


class _Fit:
    """The fit of all processes to recorded transitions."""

    def __init__(self, config: GPConfig, real: Trajectories, seed: int) -> None:
        self.config, self.seed, self.mask = config, seed, real.mask
        self.structure = structure = plain_structure(real)
        z = ((real.z - structure.mean) @ structure.whiten).astype(np.float32)
        self.real = replace(real, z=z)
        self.z, self.after, self.actions = z[:, :-1][self.mask], z[:, 1:][self.mask], real.actions[self.mask]
        self.rewards = real.rewards[self.mask]
        self.states = s = DiscreteStates.find(self.real, structure)
        self.situation = s.of(self.z, self.actions)
        self.outcome = s.outcomes(self.after, real.terminals[self.mask] > 0.5)

    def model(self) -> GPDynamics:
        s, structure, config = self.states, self.structure, self.config
        low, high = (x[s.continuous] for x in (self.z.min(0), self.z.max(0)))
        moves = (self.after - self.z)[:, s.continuous].astype(np.float64)
        process = None
        if len(s.continuous):
            process = GaussianProcess(s.inputs(self.z, self.actions, self.outcome), moves, self._plan(), self.seed)
        directions = {int(level): self._directions(int(level)) for level in np.unique(s.level(self.situation))}
        return GPDynamics(
            config,
            (structure.mean, structure.whiten, structure.unwhiten),
            s,
            (low - MARGIN * (high - low), high + MARGIN * (high - low)),
            float(self.rewards.min()),
            process,
            directions,
            *self._events(directions),
            self.z.shape[-1],
            self.actions.shape[-1],
        )

    def _plan(self, prior: NDArray[np.floating] | None = None) -> FitPlan:
        c = self.config
        return FitPlan(c.num_hyperparameter_points, c.max_transitions, c.steps, prior_mean=prior)

    def _events(
        self, directions: Mapping[int, NDArray[np.float64]]
    ) -> tuple[dict[int, OutcomeGP], dict[tuple[int, int], RewardGP]]:
        s, outcomes, rewards = self.states, {}, {}
        for code in map(int, np.unique(self.situation)):
            here = self.situation == code
            inputs = InputProjection.of_situation(directions[int(s.level(np.array([code]))[0])], s.continuous_actions)
            outcomes[code] = OutcomeGP.fit(
                inputs, self.z[here], self.actions[here], self.outcome[here], s.unchanged(code), self._plan, self.seed
            )
            for outcome in map(int, np.unique(self.outcome[here])):
                rows = here & (self.outcome == outcome)
                if rows.sum() < MIN_EXAMPLES:
                    continue
                rare = bool(rows.mean() < RARE_SHARE)
                rewards[code, outcome] = RewardGP.fit(
                    inputs, self.z[rows], self.actions[rows], self.rewards[rows], rare, self._plan, self.seed
                )
        return outcomes, rewards

    def _directions(self, level: int) -> NDArray[np.float64]:
        """Directions of the rewards of the most frequent situation at a level, where nothing jumps."""
        s = self.states
        still = (s.level(self.situation) == level) & (self.outcome == s.unchanged_level(level))
        if not still.any() or not self.config.num_directions:
            return np.zeros((self.z.shape[1], 0))
        values, counts = np.unique(self.situation[still], return_counts=True)
        rows = still & (self.situation == values[counts.argmax()])
        c = self.config
        plan = SearchPlan(c.num_directions, c.num_hyperparameter_points, starts=NUM_DIRECTION_STARTS)
        steps = self.z[rows], self.actions[rows], self.after[rows], self.rewards[rows]
        return find_directions(*steps, plan, self.seed)
