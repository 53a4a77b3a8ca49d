"""What a generator makes, and the policies that it makes it under.

Legend: N rollouts, T steps, D latent dimensions, A action dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Policy = Callable[[Tensor, int], Tensor]
"""Called with (latents (N, D), step); returns actions (N, A)."""


@dataclass(frozen=True)
class Rollout:
    """Rollouts of a generator.

    Attributes:
        z: (N, T+1, D) latents, the start included.
        actions: (N, T, A).
        rewards: (N, T) expected rewards, in the data's own units.
        terminals: (N, T), 1 where the task ends after the step.
        uncertainty: (N, T) how little the generator knows of the step, in a unit of its own (see
            `DynamicsModel.uncertainty_scale`); infinite where it knows nothing, zeros where it cannot tell.
        reward_std: (N, T) standard deviation of the rewards; None where the generator gives none.
        member: (N,) the ensemble member that made each rollout; None where there is one model.
    """

    z: Tensor
    actions: Tensor
    rewards: Tensor
    terminals: Tensor
    uncertainty: Tensor
    reward_std: Tensor | None = None
    member: Tensor | None = None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) steps up to and including the first end of the episode."""
        ends = self.terminals.cpu().numpy() > 0.5
        return np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, ends.shape[1]).astype(np.int64)


class RolloutFn(Protocol):
    """The `rollout` of a generator, see `DynamicsModel.rollout`."""

    def __call__(
        self, z0: Tensor, actions: Tensor | Policy, horizon: int, generator: torch.Generator, /
    ) -> Rollout: ...


def as_policy(actions: Tensor | Policy, horizon: int) -> Policy:
    """Recorded actions (N, ≥T, A) as a policy; a policy as it is.

    Raises:
        ValueError: where recorded actions are shorter than the horizon.
    """
    if not isinstance(actions, Tensor):
        return actions
    if actions.shape[1] < horizon:
        raise ValueError(f"{actions.shape[1]} recorded actions cannot drive {horizon} steps")
    recorded = actions
    return lambda z, t: recorded[:, t].to(z)


def tensor_policy(policy: Callable[[NDArray[np.float32], int], NDArray[np.float32]], shape: tuple[int, int]) -> Policy:
    """A policy over arrays as one over tensors.

    Raises:
        ValueError: where it returns actions of another shape.
    """

    def act(z: Tensor, t: int) -> Tensor:
        actions = np.asarray(policy(z.detach().cpu().numpy(), t), np.float32)
        if actions.shape != shape:
            raise ValueError(f"the policy returned actions {actions.shape} at step {t}; wanted {shape}")
        return torch.from_numpy(actions).to(z.device)

    return act
