"""The short-range model: one step at a time, from few transitions, and open about what it does not know.

A step is told in order: which levels the jumping dimensions take (and whether the task ends), then how the others move,
given those levels, then what is paid, given both. Each is a Gaussian process over the transitions of the same
situation: the levels before the step and the switches of the action. What never varied there is certain.
Rewards of what happened rarely return to the worst of their kind far from their examples, and every reward comes with a
doubt: what a lower bound takes off.

Legend: N steps, D latent dimensions, A action dimensions, T steps of a rollout, S situations.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from phaseb.config.transitions import TransitionsConfig
from phaseb.dynamics.gp.discrete_states import Situations, plain_structure
from phaseb.dynamics.gp.gaussian_process import FitPlan, GaussianProcess
from phaseb.dynamics.gp.reward_subspace import SearchPlan, find_directions
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Policy = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class TransitionRollout:
    """What the model made.

    Attributes:
        z: (N, T+1, D), the start included.
        actions: (N, T, A).
        rewards: (N, T) expected.
        reward_doubt: (N, T) how much less they may be, a standard deviation below the least hopeful member.
        terminals: (N, T), 1 where the task ends after the step.
        uncertainty: (N, T) standard deviation of the next latent, RMS over dimensions; infinite where nothing alike
            was seen.
    """

    z: Tensor
    actions: Tensor
    rewards: Tensor
    reward_doubt: Tensor
    terminals: Tensor
    uncertainty: Tensor


@dataclass(frozen=True)
class Outlook:
    """One step of N rollouts: next z (N, D), and (N,) reward, doubt, terminal, uncertainty."""

    z: Floats
    reward: NDArray[np.float64]
    doubt: NDArray[np.float64]
    terminal: Bools
    uncertainty: NDArray[np.float64]


class TransitionModel:
    """Fitted to the training episodes; the same data and seed give the same model.

    Raises:
        DataError: where there is no step to learn from.
    """

    def __init__(self, config: TransitionsConfig, real: Trajectories, seed: int) -> None:
        mask = real.mask
        if not mask.any():
            raise DataError("no training step for the short-range model; check the splits under episodes")
        self.config, self.seed = config, seed
        self.structure = plain_structure(real)
        real = replace(real, z=self._inner(real.z))
        z, after, actions = real.z[:, :-1][mask], real.z[:, 1:][mask], real.actions[mask]
        rewards, ends = real.rewards[mask], real.terminals[mask] > 0.5
        self.situations = s = Situations(real, self.structure)
        self.before, self.outcomes = s.of(z, actions), s.outcomes(after, ends)
        self.worst = float(rewards.min())
        low, high = (x[s.continuous] for x in (z.min(0), z.max(0)))
        self.low, self.high = low - config.margin * (high - low), high + config.margin * (high - low)
        moves = (after - z)[:, s.continuous].astype(np.float64)
        self.moves = None
        if len(s.continuous):
            self.moves = GaussianProcess(s.inputs(z, actions, self.outcomes), moves, self._plan(), seed)
        self._fit_rare(z, actions, after, rewards)

    def _inner(self, z: Floats) -> Floats:
        """Latents (..., D) in the coordinates of the structure."""
        return ((z - self.structure.centre) @ self.structure.into).astype(np.float32)

    def _outer(self, y: Floats) -> Floats:
        return (y @ self.structure.out_of + self.structure.centre).astype(np.float32)

    def _plan(self, prior: NDArray[np.floating] | None = None) -> FitPlan:
        c = self.config
        return FitPlan(c.fitted, c.kept, c.steps, prior_mean=prior)

    def _fit_rare(self, z: Floats, actions: Floats, after: Floats, rewards: Floats) -> None:
        s = self.situations
        self.directions = {
            level: self._directions(level, z, actions, after, rewards) for level in np.unique(s.level(self.before))
        }
        self.happenings: dict[int, Happening] = {}
        self.payments: dict[tuple[int, int], Payment] = {}
        for situation in np.unique(self.before):
            here = self.before == situation
            inputs = self._readings(int(situation))
            unchanged = s.unchanged(int(situation))
            self.happenings[int(situation)] = Happening(
                inputs, z[here], actions[here], self.outcomes[here], unchanged, self._plan, self.seed
            )
            for outcome in np.unique(self.outcomes[here]):
                rows = here & (self.outcomes == outcome)
                if rows.sum() < self.config.least_examples:
                    continue
                rare = bool(rows.mean() < self.config.rare_share)
                self.payments[int(situation), int(outcome)] = Payment(
                    inputs, z[rows], actions[rows], rewards[rows], rare, self._plan, self.seed
                )

    def _directions(
        self, level: int, z: Floats, actions: Floats, after: Floats, rewards: Floats
    ) -> NDArray[np.float64]:
        """Directions of the rewards of the most frequent situation at a level, where nothing jumps."""
        s = self.situations
        still = (s.level(self.before) == level) & (self.outcomes == s.unchanged_level(level))
        if not still.any() or not self.config.num_directions:
            return np.zeros((z.shape[1], 0))
        values, counts = np.unique(self.before[still], return_counts=True)
        rows = still & (self.before == values[counts.argmax()])
        plan = SearchPlan(self.config.num_directions, self.config.fitted, starts=self.config.direction_starts)
        return find_directions(z[rows], actions[rows], after[rows], rewards[rows], plan, self.seed)

    def _readings(self, situation: int) -> list["Reading"]:
        """What members of a rare model read: the directions alone, and everything beside them."""
        directions = self.directions[int(self.situations.level(np.array([situation]))[0])]
        whole = Reading(directions, self.situations.graded, everything=True)
        return [Reading(directions, self.situations.graded, everything=False), whole] if directions.size else [whole]

    def step(self, z: Floats, actions: Floats, uniform: NDArray[np.float64]) -> Outlook:
        """What follows z (N, D) under actions (N, A); `uniform` (N,) in [0, 1) draws what happens."""
        s, z = self.situations, self._inner(z)
        before = s.of(z, actions)
        outcome, known = self._happens(before, z, actions, uniform)
        after = s.levelled(z, outcome)
        uncertainty = np.zeros(len(z))
        if self.moves is not None:
            moved, doubt = self.moves.predict(s.inputs(z, actions, outcome))
            landed = after[:, s.continuous] + moved
            after[:, s.continuous] = np.clip(landed, self.low, self.high).astype(np.float32)
            spread = np.square(doubt) @ np.square(self.structure.out_of[s.continuous])
            uncertainty = np.sqrt(spread.mean(1))
        reward, doubt, paid = self._pays(before, outcome, z, actions)
        known = known & paid
        return Outlook(self._outer(after), reward, doubt, s.ends(outcome), np.where(known, uncertainty, np.inf))

    def _happens(
        self, before: NDArray[np.int64], z: Floats, actions: Floats, uniform: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], Bools]:
        """Outcomes (N,), and whether anything is known of the situation."""
        outcome = np.array([self.situations.unchanged(int(b)) for b in before], dtype=np.int64)
        known = np.zeros(len(z), bool)
        for situation, happening in self.happenings.items():
            here = before == situation
            if here.any():
                outcome[here] = happening.draw(z[here], actions[here], uniform[here])
                known |= here
        return outcome, known

    def _pays(
        self, before: NDArray[np.int64], outcome: NDArray[np.int64], z: Floats, actions: Floats
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Bools]:
        """Expected reward, its doubt and whether there were examples of it, each (N,)."""
        reward, doubt, paid = np.full(len(z), self.worst), np.zeros(len(z)), np.zeros(len(z), bool)
        for (situation, happened), payment in self.payments.items():
            here = (before == situation) & (outcome == happened)
            if here.any():
                reward[here], doubt[here] = payment.expect(z[here], actions[here])
                paid |= here
        return reward, doubt, paid

    def rollout(self, z0: Tensor, actions: Policy, horizon: int, generator: torch.Generator) -> TransitionRollout:
        """Imagine `horizon` steps from z0 (N, D) under a policy called with (latents (N, D), step)."""
        z = z0.detach().cpu().numpy().astype(np.float32)
        uniform = torch.rand(horizon, len(z), generator=generator, dtype=torch.float64).numpy()
        states, taken, steps = [z], [], []
        for t in range(horizon):
            action = actions(torch.from_numpy(z), t).detach().cpu().numpy().astype(np.float32)
            seen = self.step(z, action, uniform[t])
            z = seen.z.astype(np.float32)
            states.append(z)
            taken.append(action)
            steps.append(seen)

        def stack(columns: list[NDArray]) -> Tensor:  # type: ignore[type-arg]
            return torch.from_numpy(np.stack(columns, 1).astype(np.float32))

        return TransitionRollout(
            z=stack(states), actions=stack(taken), rewards=stack([s.reward for s in steps]),
            reward_doubt=stack([s.doubt for s in steps]), terminals=stack([s.terminal for s in steps]),
            uncertainty=stack([s.uncertainty for s in steps]),
        )  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """The inputs of one member of a rare model: (N, J) along directions, and everything else where asked for."""

    directions: NDArray[np.float64]
    graded: NDArray[np.int64]
    everything: bool

    def __call__(self, z: Floats, actions: Floats) -> NDArray[np.float64]:
        along = z @ self.directions
        return np.concatenate([along, z, actions[:, self.graded]], 1) if self.everything else along


Plan = Callable[..., FitPlan]


class Happening:
    """Which of the outcomes of one situation a step has; certain where it always had the same."""

    def __init__(
        self, readings: list[Reading], z: Floats, actions: Floats, outcomes: NDArray[np.int64], unchanged: int,
        plan: Plan, seed: int,
    ) -> None:  # fmt: skip
        self.readings = readings
        self.kinds = np.unique(outcomes)
        self.members: list[GaussianProcess] = []
        if len(self.kinds) > 1:
            signs = np.where(outcomes[:, None] == self.kinds, 1.0, -1.0)
            prior = np.where(self.kinds == unchanged, 1.0, -1.0)  # far from all examples, nothing happens
            self.members = [GaussianProcess(read(z, actions), signs, plan(prior=prior), seed) for read in readings]

    def draw(self, z: Floats, actions: Floats, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Outcomes (N,) by their probabilities."""
        if not self.members:
            return np.full(len(z), self.kinds[0])
        shares = np.zeros((len(z), len(self.kinds)))
        for read, member in zip(self.readings, self.members, strict=True):
            mean, doubt = member.predict(read(z, actions))
            shares += ndtr(mean / np.sqrt(np.square(doubt) + np.square(member.noise.numpy())))
        shares = np.cumsum(shares + 1e-9, 1)
        drawn = (shares[:, :-1] < uniform[:, None] * shares[:, -1:]).sum(1)
        return np.asarray(self.kinds[drawn])


class Payment:
    """What is paid for one outcome of one situation."""

    def __init__(
        self, readings: list[Reading], z: Floats, actions: Floats, rewards: Floats, rare: bool, plan: Plan, seed: int
    ) -> None:
        self.low, self.high = float(rewards.min()), float(rewards.max())
        whole = Reading(readings[-1].directions[:, :0], readings[-1].graded, everything=True)
        self.readings = readings if rare else [whole]
        prior = np.array([self.low]) if rare else None
        target = rewards[:, None].astype(np.float64)
        self.members = [GaussianProcess(read(z, actions), target, plan(prior=prior), seed) for read in self.readings]

    def expect(self, z: Floats, actions: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Expected reward and doubt, each (N,); never more or less than was ever paid."""
        told = [member.predict(read(z, actions)) for read, member in zip(self.readings, self.members, strict=True)]
        mean = np.mean([m[:, 0] for m, _ in told], 0)
        least = np.min([m[:, 0] - s[:, 0] for m, s in told], 0)
        mean, least = (np.clip(x, self.low, self.high) for x in (mean, least))
        return mean, mean - least
