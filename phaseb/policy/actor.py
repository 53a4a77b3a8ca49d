"""One trained policy: a plain module from latent to action, saved with a digest, run on arrays.

N rows, D latent dimensions, A action dimensions in [-1, 1].
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phaseb.errors import DataError
from phaseb.policy.networks import ActorStack, Stack
from phaseb.runtime.checkpoint import load_checkpoint, save_checkpoint
from phaseb.runtime.storage import Store


class Actor(nn.Module):
    """A squashed Gaussian policy over latents. `forward` is its deterministic mean action, for export.

    Args:
        weights, biases: of each layer, of the policy's members.
    """

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor], norm: bool, levels: Tensor | None = None
    ) -> None:
        super().__init__()
        stack = Stack([w.detach().clone() for w in weights], [b.detach().clone() for b in biases], norm)
        self.policy = ActorStack(stack, levels, num_members=len(stack.weights[0])).requires_grad_(False)

    @classmethod
    def of_run(cls, actors: ActorStack, run: int) -> "Actor":
        """A copy of one run of a stack."""
        stack, count = actors.stack, actors.num_members
        part = slice(run * count, (run + 1) * count)
        return cls([w[part] for w in stack.weights], [b[part] for b in stack.biases], stack.norm, actors.levels)

    @property
    def z_size(self) -> int:
        return int(self.policy.stack.weights[0].shape[1])

    @property
    def action_size(self) -> int:
        return int(self.policy.stack.biases[-1].shape[2]) // 2

    def forward(self, z_ND: Tensor) -> Tensor:
        """The mean action (N, A)."""
        return self.policy.mode_action(self.policy(z_ND[None])[0])[0]

    def sample(self, z_ND: Tensor, generator: torch.Generator) -> Tensor:
        """An action drawn from the policy (N, A); the generator lives on the CPU whatever the device."""
        noise = torch.randn(len(z_ND), self.action_size, generator=generator).to(z_ND.device)
        return self.policy.sample(z_ND[None], noise[None])[0][0]

    def act(self, z: NDArray[np.floating]) -> NDArray[np.float32]:
        """The mean action (N, A) of latents (N, D), on arrays.

        Raises:
            ValueError: where the latents are of another size than the policy was trained on.
        """
        if z.ndim != 2 or z.shape[1] != self.z_size:
            raise ValueError(f"latents of shape {z.shape} do not fit a policy over (N, {self.z_size})")
        weight = self.policy.stack.weights[0]
        with torch.no_grad():
            rows = torch.as_tensor(np.asarray(z, np.float32), device=weight.device)
            return np.asarray(self(rows).cpu().numpy(), np.float32)

    def closed_loop(self) -> Callable[[NDArray[np.float32], int], NDArray[np.float32]]:
        """The policy as it acts for whole episodes: it remembers nothing."""
        return lambda z, step: self.act(z)

    def save(self, store: Store, meta: Mapping[str, Any] | None = None) -> str:
        """Write the policy into a folder; returns its digest."""
        spec = {"z_size": self.z_size, "action_size": self.action_size, "norm": self.policy.stack.norm}
        return save_checkpoint(store, self.state_dict(), {"policy": spec, **(meta or {})})

    @classmethod
    def load(cls, store: Store) -> "Actor":
        """Read a policy.

        Raises:
            DataError: where it is absent, altered, or no policy.
        """
        tensors, meta = load_checkpoint(store)
        prefix = "policy.stack."
        layers = sum(name.startswith(f"{prefix}weights.") for name in tensors)
        try:
            weights = [tensors[f"{prefix}weights.{i}"] for i in range(layers)]
            biases = [tensors[f"{prefix}biases.{i}"] for i in range(layers)]
            return cls(weights, biases, bool(meta["policy"]["norm"]), tensors["policy.levels"])
        except KeyError as error:
            raise DataError(f"{store.root} holds no policy: it lacks {error}; train it again") from error
