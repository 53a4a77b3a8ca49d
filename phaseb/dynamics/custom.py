"""A world model of one's own in place of the built-in ensemble: `world_model.model=module:Class`.

It says how one step goes; rolling out, keeping, gating and judging are done for it as for the built-in one.

Legend: N rollouts, T steps, D latent, A action.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from phaseb.config.world_model import BUILT_IN, WorldModelConfig
from phaseb.dynamics.gru_ensemble.model import Policy, Rollout, WorldModelBundle
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.checkpoint import load_checkpoint, save_checkpoint
from phaseb.runtime.plugins import load_named
from phaseb.runtime.storage import Store


class Step(NamedTuple):
    """What one step of N rollouts leads to.

    Attributes:
        z: (N, D) the next latents.
        reward: (N,) in the data's own units.
        terminal: (N,) probability that the task ends with the step.
        uncertainty: (N,) how little the model knows of it, in any unit of its own; zeros where it cannot tell.
        memory: whatever the next step is to be given; None for a model without memory.
    """

    z: Tensor
    reward: Tensor
    terminal: Tensor
    uncertainty: Tensor
    memory: Any = None


class OneStepModel(Protocol):
    """What `module:Class` is: called as Class(config, latent_size, action_size)."""

    def fit(self, train: Trajectories, seed: int) -> None:
        """Learn from the training episodes."""

    def step(self, z: Tensor, action: Tensor, memory: Any, generator: torch.Generator) -> Step:
        """From latents (N, D) under actions (N, A); `memory` is None at the first step."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """All that `fit` learned, as tensors by name: what is written to disk."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> object:
        """Take what `state_dict` gave."""


@dataclass
class OwnWorldModel:
    """A model of one's own that is used as a `WorldModelBundle` is; it never reads actions ahead."""

    config: WorldModelConfig
    model: OneStepModel
    latent_size: int
    action_size: int
    lineage: dict[str, Any] = field(default_factory=dict)
    num_members = 1

    @torch.no_grad()
    def rollout(
        self, z0: Tensor, actions: Tensor | Policy, horizon: int, generator: torch.Generator,
        member: int | None = None, foresight: Tensor | None = None,
    ) -> Rollout:  # fmt: skip
        """Imagine `horizon` steps from z0 (N, D), see `WorldModelBundle.rollout`.

        Raises:
            ValueError: where recorded actions are shorter than the horizon.
            DataError: where the model's step has other shapes, or is not finite.
        """
        if isinstance(actions, Tensor) and actions.shape[1] < horizon:
            raise ValueError(f"{actions.shape[1]} recorded actions cannot drive {horizon} steps")
        z, memory, taken, steps = z0, None, [], []
        for t in range(horizon):
            action = actions[:, t] if isinstance(actions, Tensor) else actions(z, t)
            step = self._checked(self.model.step(z, action, memory, generator), len(z0), t)
            z, memory = step.z, step.memory
            taken.append(action)
            steps.append(step)
        return Rollout(
            z=torch.stack([z0, *(s.z for s in steps)], 1), actions=torch.stack(taken, 1),
            rewards=torch.stack([s.reward for s in steps], 1),
            terminals=(torch.stack([s.terminal for s in steps], 1) > 0.5).float(),
            uncertainty=torch.stack([s.uncertainty for s in steps], 1),
            member=torch.zeros(len(z0), dtype=torch.int64),
        )  # fmt: skip

    def _checked(self, step: Step, rows: int, t: int) -> Step:
        wanted = {"z": (rows, self.latent_size), **dict.fromkeys(("reward", "terminal", "uncertainty"), (rows,))}
        for name, shape in wanted.items():
            value = getattr(step, name)
            if tuple(value.shape) != shape:
                raise DataError(f"{self.config.model}: {name} of step {t} is {tuple(value.shape)}, wanted {shape}")
            if not torch.isfinite(value).all():
                raise DataError(f"{self.config.model}: {name} of step {t} has NaN or Inf")
        return step

    def mean_rollout(self, z0: Tensor, actions: Tensor) -> Tensor:
        """(N, T+1, D): one rollout, for there is one member."""
        return self.rollout(z0, actions, actions.shape[1], torch.Generator().manual_seed(0)).z

    def members_rollout(self, z0: Tensor, actions: Tensor) -> Tensor:
        """(1, N, T+1, D)."""
        return self.mean_rollout(z0, actions)[None]

    @torch.no_grad()
    def teacher_forced(self, z: Tensor, actions: Tensor, member: int | None = None) -> Tensor:
        """One-step predictions (N, T, D) of z[:, 1:] along real z (N, T+1, D)."""
        generator, memory, made = torch.Generator().manual_seed(0), None, []
        for t in range(actions.shape[1]):
            step = self._checked(self.model.step(z[:, t], actions[:, t], memory, generator), len(z), t)
            memory = step.memory
            made.append(step.z)
        return torch.stack(made, 1)

    def save(self, store: Store) -> str:
        """Write what the model learned; returns the digest."""
        meta = {
            "config": self.config.model_dump(mode="json"), "latent_size": self.latent_size,
            "action_size": self.action_size, "lineage": self.lineage,
        }  # fmt: skip
        return save_checkpoint(store, dict(self.model.state_dict()), meta)


WorldModels = WorldModelBundle | OwnWorldModel


def fit_own(config: WorldModelConfig, train: Trajectories, seed: int) -> OwnWorldModel:
    """The model that `world_model.model` names, trained."""
    made = _make(config, train.z.shape[-1], train.actions.shape[-1])
    made.model.fit(train, seed)
    return made


def load_world_model(store: Store, device: torch.device | str = "cpu") -> WorldModels:
    """The world model of a run, built in or of one's own.

    Raises:
        DataError: where the checkpoint is absent, altered or of another version.
        ConfigError: where the class that it is of cannot be imported, or is no world model.
    """
    tensors, meta = load_checkpoint(store)
    if meta.get("config", {}).get("model", BUILT_IN) == BUILT_IN:
        return WorldModelBundle.load(store, device)
    try:
        made = _make(WorldModelConfig.model_validate(meta["config"]), meta["latent_size"], meta["action_size"])
        made.model.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"world model {store.root} is of another version: {error}; train it again") from error
    return made


def _make(config: WorldModelConfig, latent_size: int, action_size: int) -> OwnWorldModel:
    named = load_named(config.model, "world_model.model")
    lacking = [name for name in ("fit", "step", "state_dict", "load_state_dict") if not hasattr(named, name)]
    if not isinstance(named, type) or lacking:
        raise ConfigError(f"world_model.model: {config.model} is no class with {', '.join(lacking) or 'these methods'}")
    model = cast(OneStepModel, named(config, latent_size, action_size))
    return OwnWorldModel(config, model, latent_size, action_size)
