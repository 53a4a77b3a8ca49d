"""World models to rely on and world models broken on purpose: what benchmarks and tests of "do no harm" are made of.

A model is called as `(starts (N, D), policy(latents, step), steps, generator)` and gives rollouts (see
`phaseb.policy.augmentation.RolloutFn`). Two can be relied on: a trained ensemble, and the physics itself behind
the latents' standardisation, which never disagrees with itself. What is broken is broken *inside* the rollout: the
policy sees the broken latents and acts on them, and no disagreement betrays it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.dynamics.rollout import Rollout
from phaseb.policy.augmentation import ModelRollout, RolloutFn
from phaseb.workcell.batch import BatchedCell
from phaseb.workcell.physics import CellParameters

Policy = Callable[[Tensor, int], Tensor]
Bend = Callable[[Tensor, Tensor, int], Tensor]
"""(starts (N, D), latents (N, D), step) -> the latents that the broken model tells of that step."""

OTHER_CELL = CellParameters(cart_mass_kg=2.5, rope_length_m=0.5, max_force_n=6.0, part_mass_kg=(1.5, 2.5))
FROZEN_DIM, BIAS_A_STEP = 1, 0.2  # the cart's speed; standard deviations of every latent


class Standard:
    """States as latents, standardised with the training episodes' statistics (std floored at 5 % of the largest)."""

    def __init__(self, states: NDArray[np.floating]) -> None:
        flat = states.reshape(-1, states.shape[-1])
        self.mean, self.std = flat.mean(0), np.maximum(flat.std(0), 0.05 * flat.std(0).max())

    def __call__(self, state: NDArray[np.floating]) -> NDArray[np.float32]:
        return ((state - self.mean) / self.std).astype(np.float32)

    def states(self, z: NDArray[np.floating]) -> NDArray[np.float64]:
        return z.astype(np.float64) * self.std + self.mean

    def reset(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        return self(observation["state"])

    step = reset


class PhysicsModel:
    """The built-in cell itself as a world model over standardised states: right, and never unsure."""

    def __init__(self, standard: Standard, config: CellParameters | None = None) -> None:
        self._standard, self._config = standard, config or CellParameters()

    def __call__(self, z0: Tensor, actions: Policy, horizon: int, generator: torch.Generator) -> Rollout:
        cell = _ResumedCell(len(z0), "state", horizon, self._config)
        cell.resume(self._standard.states(z0.numpy()))
        z, taken, rewards = [z0], [], []
        for t in range(horizon):
            action = actions(z[-1], t)
            observation, reward, *_ = cell.step(action.numpy())
            z.append(torch.from_numpy(self._standard(observation["state"])))
            taken.append(action)
            rewards.append(torch.from_numpy(reward))
        nothing = torch.zeros(len(z0), horizon)
        return Rollout(torch.stack(z, 1), torch.stack(taken, 1), torch.stack(rewards, 1), nothing, nothing.clone())


class _ResumedCell(BatchedCell):
    """Cells that go on from any state that the sensors told, themselves without noise."""

    def resume(self, states: NDArray[np.float64]) -> None:
        self._cranes.place(states[:, 0:4:2], states[:, 1:4:2])
        hook = self._cranes.hook_position
        self._infeed, self._outfeed, self._part = hook + states[:, 5], hook + states[:, 6], states[:, 7].clip(1e-3)
        loaded = np.flatnonzero(states[:, 4] > 0)
        self._cranes._hang(loaded, self._part[loaded])
        self._noise = np.zeros((self.num_envs, self.max_steps + 1, states.shape[1]))
        self._good, self._errors, self._energy_j, self._return = np.zeros((4, self.num_envs))
        self._step = 0


def flipped_rewards(imagine: RolloutFn) -> RolloutFn:
    """The model with its rewards' sign turned."""

    def broken(z0: Tensor, actions: Policy, horizon: int, generator: torch.Generator) -> ModelRollout:
        rolled = imagine(z0, actions, horizon, generator)
        return _told(rolled, rolled.z, -rolled.rewards)

    return broken


def bent(imagine: RolloutFn, bend: Bend) -> RolloutFn:
    """The model with its latents changed after every step, and the policy acting on what is told."""

    def broken(z0: Tensor, actions: Policy, horizon: int, generator: torch.Generator) -> ModelRollout:
        rolled = imagine(z0, lambda z, t: actions(bend(z0, z, t), t), horizon, generator)
        z = torch.stack([bend(z0, rolled.z[:, t], t) for t in range(horizon + 1)], 1)
        return _told(rolled, z, rolled.rewards)

    return broken


def doubled(imagine: RolloutFn) -> RolloutFn:
    return bent(imagine, lambda z0, z, t: z if t == 0 else 2 * z)


def frozen(imagine: RolloutFn, dim: int = FROZEN_DIM) -> RolloutFn:
    def bend(z0: Tensor, z: Tensor, t: int) -> Tensor:
        still = z.clone()
        still[:, dim] = z0[:, dim]
        return still

    return bent(imagine, bend)


def drifting(imagine: RolloutFn, a_step: float = BIAS_A_STEP) -> RolloutFn:
    return bent(imagine, lambda z0, z, t: z + a_step * t)


BREAKS: dict[str, Callable[[RolloutFn], RolloutFn]] = {
    "rewards flipped": flipped_rewards,
    "latents x 2": doubled,
    "one dimension frozen": frozen,
    "bias growing with the step": drifting,
}
"""Ways to break any model; the other three kinds are models of their own: untrained, report-2025, of another cell."""


def _told(rolled: ModelRollout, z: Tensor, rewards: Tensor) -> Rollout:
    return Rollout(z, rolled.actions, rewards, rolled.terminals, rolled.uncertainty)


def perturbed(actions: NDArray[np.float32], scale: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Recorded actions with noise, in [-1, 1]."""
    return np.clip(actions + scale * generator.standard_normal(actions.shape), -1, 1).astype(np.float32)
