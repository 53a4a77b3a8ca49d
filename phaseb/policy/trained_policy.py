"""What all trained policies have in common, and how they are read back.

N rows or episodes side by side, D latent dimensions, A action dimensions.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.policy.actor import Actor
from phaseb.policy.chunk_policy import ChunkPolicy
from phaseb.runtime.checkpoint import load_checkpoint
from phaseb.runtime.storage import Store

Floats = NDArray[np.float32]
ClosedLoopAct = Callable[[Floats, int], Floats]
"""Called with latents (N, D) and the step; returns actions (N, A) in [-1, 1]. At step 0 all N episodes begin."""


class TrainedPolicy(Protocol):
    """A policy over latents. Only `closed_loop` remembers anything from step to step."""

    @property
    def z_size(self) -> int: ...

    @property
    def action_size(self) -> int: ...

    def __call__(self, z_ND: Tensor, /) -> Tensor:
        """The action (N, A) without noise; of a chunk the first."""
        ...

    def act(self, z: NDArray[np.floating]) -> Floats:
        """The same on arrays."""
        ...

    def sample(self, z_ND: Tensor, generator: torch.Generator) -> Tensor:
        """An action drawn from the policy (N, A)."""
        ...

    def closed_loop(self) -> ClosedLoopAct:
        """The policy as it acts for whole episodes."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def save(self, store: Store, meta: Mapping[str, Any] | None = None) -> str:
        """Write the policy into a folder; returns its digest."""
        ...


def load_policy(store: Store) -> TrainedPolicy:
    """Read a policy of any kind.

    Raises:
        DataError: where it is absent, altered, or no policy.
    """
    _, meta = load_checkpoint(store)
    return ChunkPolicy.load(store) if "network" in meta.get("policy", {}) else Actor.load(store)
