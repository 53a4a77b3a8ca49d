"""The one protocol of all generators, and how a saved one is loaded.

Legend: N rollouts, T steps, D latent dimensions, A action dimensions.
"""

from typing import Protocol

import torch
from torch import Tensor

from phaseb.dynamics.custom import CustomDynamics
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.dynamics.gru_ensemble.model import EnsembleDynamics
from phaseb.dynamics.rollout import Policy as Policy
from phaseb.dynamics.rollout import Rollout as Rollout
from phaseb.errors import DataError
from phaseb.runtime.checkpoint import load_checkpoint
from phaseb.runtime.storage import Store


class DynamicsModel(Protocol):
    """A fitted generator.

    Attributes:
        name: by which the configuration calls it.
        latent_size: D.
        action_size: A.
        num_members: models whose disagreement is its uncertainty; 1 where there is one.
        uncertainty_scale: the uncertainty of an ordinary rollout, by which the gate divides: a quantile
            (`UNCERTAINTY_QUANTILE`) on held-out recorded actions at the horizon that it is used at. 0 where
            the generator never says that it is uncertain: then the gate discounts nothing.
    """

    name: str
    uncertainty_scale: float

    @property
    def latent_size(self) -> int: ...

    @property
    def action_size(self) -> int: ...

    @property
    def num_members(self) -> int: ...

    def rollout(
        self,
        z0: Tensor,
        actions: Tensor | Policy,
        horizon: int,
        generator: torch.Generator,
        lookahead: Tensor | None = None,
    ) -> Rollout:
        """Roll out `horizon` steps from z0 (N, D).

        Args:
            z0: starts.
            actions: recorded actions (N, ≥T, A), or a policy.
            horizon: T.
            generator: of all draws.
            lookahead: (N,) bool, true where the recorded actions were taken from these very starts, so that a generator
                may read them ahead of their step; all where None, none under a policy.

        Raises:
            ValueError: where recorded actions are shorter than the horizon.
        """
        ...

    def mean_rollout(self, z0: Tensor, actions: Tensor) -> Tensor:
        """(N, T+1, D) forecast without noise from z0 (N, D) under recorded actions (N, T, A)."""
        ...

    def teacher_forced(self, z: Tensor, actions: Tensor, member: int | None = None) -> Tensor:
        """(N, T, D) one-step predictions of z[:, 1:] along real z (N, T+1, D)."""
        ...

    def save(self, store: Store) -> str:
        """Write the generator into a folder; returns its digest."""
        ...


def load_generator(store: Store, device: torch.device | str = "cpu") -> DynamicsModel:
    """The generator that was saved in a folder, `dynamics/<name>/` of a run.

    Raises:
        DataError: where the checkpoint is absent, altered or of another version.
        ConfigError: where the class of a plug-in cannot be imported, or is no generator.
    """
    tensors, meta = load_checkpoint(store)
    kind = meta.get("kind")
    try:
        if kind == "gru":
            return EnsembleDynamics.restore(tensors, meta, device)
        if kind == "gp":
            return GPDynamics.restore(tensors, meta)
        if kind == "plugin":
            return CustomDynamics.restore(tensors, meta)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"generator {store.root} is of another version: {error}; fit it again") from error
    raise DataError(f"generator {store.root} is of another version: its kind is {kind!r}; fit it again")
