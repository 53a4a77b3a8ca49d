"""One step of a generator after the other, under actions that are chosen on the way.

Legend: K members, N episodes, D latent dimensions, A action dimensions.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from phaseb.dynamics.custom import CustomDynamics
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.dynamics.gru_ensemble.action_lookahead import pad_future_actions
from phaseb.dynamics.gru_ensemble.model import EnsembleDynamics
from phaseb.dynamics.gru_ensemble.rollout import RolloutEngine, RolloutState


class WalkStep(NamedTuple):
    """What a step leads to: z (N, D); reward, terminal (0 or 1) and uncertainty, each (N,)."""

    z: Tensor
    reward: Tensor
    terminal: Tensor
    uncertainty: Tensor


class Walk(Protocol):
    """Episodes of a generator under way; it remembers what the generator remembers of them."""

    def step(self, actions: Tensor) -> WalkStep:
        """Take actions (N, A) in [-1, 1]."""
        ...


def start_walk(model: object, z0: Tensor, draws: torch.Generator) -> Walk:
    """Begin N episodes at latents z0 (N, D).

    Args:
        model: a generator.
        z0: starts.
        draws: of everything random on the way.

    Raises:
        TypeError: for a model that is no generator.
    """
    if isinstance(model, EnsembleDynamics):
        return EnsembleWalk(model, z0, draws)
    if isinstance(model, GPDynamics):
        return GPWalk(model, z0, draws)
    if isinstance(model, CustomDynamics):
        return CustomWalk(model, z0, draws)
    raise TypeError(f"{type(model).__name__} is no generator")


class EnsembleWalk:
    """A walk of the GRU ensemble: each episode keeps one member; the others say how certain it is."""

    def __init__(self, model: EnsembleDynamics, z0: Tensor, draws: torch.Generator) -> None:
        self._model, self._draws = model, draws
        network, n, k = model.model, len(z0), model.num_members
        self._own = torch.randperm(n, generator=draws) % k, torch.arange(n)
        starts = network.to_model_space(z0).expand(k, *z0.shape)
        self._walk = RolloutState(RolloutEngine(network, model.gp_correction), starts)
        self._others = RolloutState(RolloutEngine(network), starts) if model.gp_correction is not None else None

    @torch.no_grad()
    def step(self, actions: Tensor) -> WalkStep:
        """Take actions (N, A)."""
        model, network = self._model, self._model.model
        table = torch.arange(len(actions)).expand(model.num_members, -1)
        seen = pad_future_actions(actions, network.num_ahead)[table]
        noise = model.noise(len(actions), self._draws).of(table)
        made = self._walk.step(seen, noise)
        ends = torch.sigmoid(made.logit)
        uncertainty = model.spread(*model.opinions(made, ends, self._others, seen, noise))
        reward = made.reward[self._own] * network.reward_scale + network.reward_mean
        return WalkStep(made.z[self._own].clone(), reward, (ends[self._own] > 0.5).float(), uncertainty)


class GPWalk:
    """A walk of the Gaussian processes, which have no memory."""

    def __init__(self, model: GPDynamics, z0: Tensor, draws: torch.Generator) -> None:
        self._model, self._z, self._draws = model, z0.numpy(), draws

    def step(self, actions: Tensor) -> WalkStep:
        """Take actions (N, A)."""
        drawn = self._model.draws(len(actions), self._draws)
        made = self._model.step(self._z, actions.numpy(), *drawn)
        self._z = made.z
        columns = (made.reward, made.terminal, made.uncertainty)
        return WalkStep(torch.from_numpy(made.z), *(torch.as_tensor(column).float() for column in columns))


class CustomWalk:
    """A walk of a plug-in, with its memory."""

    def __init__(self, model: CustomDynamics, z0: Tensor, draws: torch.Generator) -> None:
        self._model, self._z, self._draws, self._steps = model, z0, draws, 0
        self._memory: object = None

    @torch.no_grad()
    def step(self, actions: Tensor) -> WalkStep:
        """Take actions (N, A).

        Raises:
            DataError: where the model's step has other shapes, or is not finite.
        """
        made = self._model.checked_step(self._z, actions, self._memory, self._draws, self._steps)
        self._z, self._memory, self._steps = made.z, made.memory, self._steps + 1
        return WalkStep(made.z, made.reward, (made.terminal > 0.5).float(), made.uncertainty)
