"""Plug-ins: generators of your own, `dynamics.plugins.<name>.model=module:Class`.

The class predicts one step. Rolling out, saving, gating and judging work as for the built-in generators.

Legend: N rollouts, T steps, D latent dimensions, A action dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self, cast

import torch
from torch import Tensor

from phaseb.config.dynamics import GRUConfig, PluginConfig
from phaseb.dynamics.rollout import Policy, Rollout, as_policy
from phaseb.dynamics.structure import find_structure
from phaseb.episodes.tasks import CONDITION_TAG
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.checkpoint import save_checkpoint
from phaseb.runtime.plugins import load_plugin
from phaseb.runtime.storage import Store


class Step(NamedTuple):
    """What one step of N rollouts leads to.

    Attributes:
        z: (N, D) the next latents.
        reward: (N,) in the data's own units.
        terminal: (N,) probability that the task ends with the step.
        uncertainty: (N,) how little the model knows of it, in any unit of its own; zeros where it cannot tell.
        memory: passed to the next step; None for a model without memory.
    """

    z: Tensor
    reward: Tensor
    terminal: Tensor
    uncertainty: Tensor
    memory: Any = None


class OneStepDynamics(Protocol):
    """What `module:Class` is: called as Class(settings, latent_size, action_size)."""

    def fit(self, train: Trajectories, seed: int) -> None:
        """Learn from the training episodes."""

    def step(self, z: Tensor, action: Tensor, memory: Any, generator: torch.Generator) -> Step:
        """From latents (N, D) under actions (N, A); `memory` is None at the first step."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """All that `fit` learned, as tensors by name: what is written to disk."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> object:
        """Take what `state_dict` gave."""


@dataclass
class CustomDynamics:
    """A plug-in behind the protocol of all generators; it never reads actions ahead.

    Attributes:
        held: (D, D) onto the directions that are constant within every training episode, where episodes have several
            tasks: they stay what they were, whatever the class predicts. None otherwise.
    """

    name: str
    config: PluginConfig
    model: OneStepDynamics
    latent_size: int
    action_size: int
    uncertainty_scale: float = 0.0
    lineage: dict[str, Any] = field(default_factory=dict)
    held: Tensor | None = None
    num_members = 1

    @classmethod
    def make(cls, name: str, config: PluginConfig, latent_size: int, action_size: int) -> Self:
        """The plug-in, not fitted yet.

        Raises:
            ConfigError: where the class cannot be imported, or lacks a method.
        """
        setting = f"dynamics.plugins.{name}.model"
        named = load_plugin(config.model, setting)
        lacking = [method for method in ("fit", "step", "state_dict", "load_state_dict") if not hasattr(named, method)]
        if not isinstance(named, type) or lacking:
            raise ConfigError(f"{setting}: {config.model} is no class with {', '.join(lacking) or 'these methods'}")
        model = cast(OneStepDynamics, named(dict(config.settings), latent_size, action_size))
        return cls(name, config, model, latent_size, action_size)

    @torch.no_grad()
    def rollout(
        self,
        z0: Tensor,
        actions: Tensor | Policy,
        horizon: int,
        generator: torch.Generator,
        lookahead: Tensor | None = None,
    ) -> Rollout:
        """Roll out `horizon` steps from z0 (N, D), see `DynamicsModel.rollout`.

        Raises:
            ValueError: where recorded actions are shorter than the horizon.
            DataError: where the model's step has other shapes, or is not finite.
        """
        policy = as_policy(actions, horizon)
        z, memory, taken, steps = z0, None, [], []
        for t in range(horizon):
            action = policy(z, t)
            step = self.checked_step(z, action, memory, generator, t)
            z, memory = step.z, step.memory
            taken.append(action)
            steps.append(step)
        return Rollout(
            z=torch.stack([z0, *(s.z for s in steps)], 1),
            actions=torch.stack(taken, 1),
            rewards=torch.stack([s.reward for s in steps], 1),
            terminals=(torch.stack([s.terminal for s in steps], 1) > 0.5).float(),
            uncertainty=torch.stack([s.uncertainty for s in steps], 1),
        )

    def checked_step(self, z: Tensor, action: Tensor, memory: Any, generator: torch.Generator, t: int) -> Step:
        """Step number t of the model, from latents (N, D) under actions (N, A).

        Raises:
            DataError: where it has other shapes, or is not finite.
        """
        step, rows = self.model.step(z, action, memory, generator), len(z)
        wanted = {"z": (rows, self.latent_size), **dict.fromkeys(("reward", "terminal", "uncertainty"), (rows,))}
        for name, shape in wanted.items():
            value = getattr(step, name)
            if tuple(value.shape) != shape:
                raise DataError(f"{self.config.model}: {name} of step {t} is {tuple(value.shape)}, wanted {shape}")
            if not torch.isfinite(value).all():
                raise DataError(f"{self.config.model}: {name} of step {t} has NaN or Inf")
        return step if self.held is None else step._replace(z=step.z + (z - step.z) @ self.held)

    def mean_rollout(self, z0: Tensor, actions: Tensor) -> Tensor:
        """(N, T+1, D): one rollout with a fixed seed, for there is one member."""
        return self.rollout(z0, actions, actions.shape[1], torch.Generator().manual_seed(0)).z

    @torch.no_grad()
    def teacher_forced(self, z: Tensor, actions: Tensor, member: int | None = None) -> Tensor:
        """One-step predictions (N, T, D) of z[:, 1:] along real z (N, T+1, D)."""
        generator, memory, made = torch.Generator().manual_seed(0), None, []
        for t in range(actions.shape[1]):
            step = self.checked_step(z[:, t], actions[:, t], memory, generator, t)
            memory = step.memory
            made.append(step.z)
        return torch.stack(made, 1)

    def save(self, store: Store) -> str:
        """Write what the model learned; returns the digest."""
        meta = {
            "kind": "plugin",
            "name": self.name,
            "config": self.config.model_dump(mode="json"),
            "latent_size": self.latent_size,
            "action_size": self.action_size,
            "uncertainty_scale": self.uncertainty_scale,
            "lineage": self.lineage,
            "held": None if self.held is None else self.held.tolist(),
        }
        return save_checkpoint(store, dict(self.model.state_dict()), meta)

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        """The model that `save` wrote, of a checkpoint's content.

        Raises:
            ConfigError: where the class cannot be imported, or lacks a method.
        """
        config = PluginConfig.model_validate(meta["config"])
        made = cls.make(meta["name"], config, meta["latent_size"], meta["action_size"])
        made.model.load_state_dict(tensors)
        made.held = None if meta.get("held") is None else torch.tensor(meta["held"])
        made.uncertainty_scale, made.lineage = float(meta["uncertainty_scale"]), dict(meta["lineage"])
        return made


def fit_custom(name: str, config: PluginConfig, train: Trajectories, seed: int) -> CustomDynamics:
    """The plug-in `name`, fitted to the training episodes.

    Raises:
        ConfigError: where the class cannot be imported, or lacks a method.
    """
    made = CustomDynamics.make(name, config, train.z.shape[-1], train.actions.shape[-1])
    made.model.fit(train, seed)
    if f"tag/{CONDITION_TAG}" in train.lineage:
        structure = find_structure(train.z, train.rewards, train.mask, GRUConfig())
        still = structure.varying == 0
        made.held = torch.from_numpy(structure.whiten[:, still] @ structure.unwhiten[still])
    return made
