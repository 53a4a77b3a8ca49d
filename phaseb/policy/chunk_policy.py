"""A trained policy that plans a chunk of actions at once, and how it acts on its plans step by step.

N rows or episodes side by side, K steps of a chunk, D latent dimensions, A action dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phaseb.errors import DataError
from phaseb.policy.chunk_networks import NETWORKS, STYLE_SIZE, ActNetwork, ChunkSizes, FlowNetwork
from phaseb.runtime.checkpoint import load_checkpoint, save_checkpoint
from phaseb.runtime.seeding import numpy_generator
from phaseb.runtime.storage import Store

ENSEMBLE_DECAY = 0.01
"""Temporal ensembling: the plan i steps younger than the oldest weighs exp(-ENSEMBLE_DECAY i)."""
FLOW_STEPS = 10
"""Euler steps from noise to a chunk."""

Floats = NDArray[np.float32]
Seen = Any
"""What a plan is made of: latents, or the observations of an exported policy."""
Plan = Callable[[Seen, Floats], Floats]
"""Called with what is seen of N episodes and noise (N, K, A); returns chunks (N, K, A)."""


class ChunkPolicy(nn.Module):
    """A policy over latents that plans K actions. `forward` is the first of them, without noise.

    Args:
        network: an `ActNetwork` or a `FlowNetwork`.
        levels: (A, 2) lower and upper level of the actions that were only recorded at two (a gripper), which plans keep
            to; the same twice for other actions. None: there are none.
    """

    levels: Tensor

    def __init__(self, network: ActNetwork | FlowNetwork, levels: Tensor | None = None) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.register_buffer("levels", torch.zeros(network.sizes.action, 2) if levels is None else levels.clone())

    @property
    def kind(self) -> str:
        return next(name for name, kind in NETWORKS.items() if isinstance(self.network, kind))

    @property
    def z_size(self) -> int:
        return self.network.sizes.z

    @property
    def action_size(self) -> int:
        return self.network.sizes.action

    @property
    def chunk_steps(self) -> int:
        """K."""
        return self.network.sizes.steps

    @property
    def binary_actions(self) -> list[int]:
        """The actions that have two levels."""
        return [int(i) for i in torch.nonzero(self.levels[:, 0] < self.levels[:, 1])[:, 0]]

    def forward(self, z_ND: Tensor) -> Tensor:
        """The first action (N, A) of a plan without noise."""
        noise = torch.zeros(z_ND.shape[0], self.chunk_steps, self.action_size, device=z_ND.device)
        return self.plan(z_ND, noise)[:, 0]

    def plan(self, z_ND: Tensor, noise_NKA: Tensor) -> Tensor:
        """A chunk (N, K, A) in [-1, 1]. An `ActNetwork` needs no noise: its style is zero at run time."""
        chunk = self.predict(z_ND, noise_NKA).clamp(-1, 1)
        low, high = self.levels[:, 0], self.levels[:, 1]
        return torch.where(low < high, torch.where(chunk > (low + high) / 2, high, low), chunk)

    def predict(self, z_ND: Tensor, noise_NKA: Tensor) -> Tensor:
        """The network's output (N, K, A), before bounds and levels."""
        if isinstance(self.network, ActNetwork):
            chunk = self.network(z_ND, torch.zeros(z_ND.shape[0], STYLE_SIZE, dtype=z_ND.dtype, device=z_ND.device))
        else:
            chunk = noise_NKA
            for step in range(FLOW_STEPS):
                time = torch.full_like(z_ND[:, 0], step / FLOW_STEPS)
                chunk = chunk + self.network(z_ND, chunk, time) / FLOW_STEPS
        return chunk

    def act(self, z: NDArray[np.floating]) -> Floats:
        """The first action (N, A) of a plan without noise, on arrays."""
        return self._planned(np.asarray(z, np.float32), np.zeros(self._noise_shape(len(z)), np.float32))[:, 0]

    def sample(self, z_ND: Tensor, generator: torch.Generator) -> Tensor:
        """The first action (N, A) of a plan whose noise is drawn."""
        return self.plan(z_ND, torch.randn(self._noise_shape(len(z_ND)), generator=generator).to(z_ND.device))[:, 0]

    def closed_loop(self) -> "TemporalEnsemble | PlanQueue":
        """The policy as it acts for whole episodes: an ensemble of its plans, or a queue of the newest."""
        return acting_of(self.kind, self._planned, (self.chunk_steps, self.action_size), self.binary_actions)

    def save(self, store: Store, meta: Mapping[str, Any] | None = None) -> str:
        """Write the policy into a folder; returns its digest."""
        spec = {"network": self.kind, "sizes": list(self.network.sizes)}
        return save_checkpoint(store, self.state_dict(), {"policy": spec, **(meta or {})})

    @classmethod
    def load(cls, store: Store) -> "ChunkPolicy":
        """Read a policy.

        Raises:
            DataError: where it is absent, altered, or no policy of chunks.
        """
        tensors, meta = load_checkpoint(store)
        try:
            spec = meta["policy"]
            policy = cls(NETWORKS[spec["network"]](ChunkSizes(*spec["sizes"])))
            policy.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError) as error:
            raise DataError(f"{store.root} holds no policy of chunks: {error}; train it again") from error
        return policy

    def _noise_shape(self, num: int) -> tuple[int, int, int]:
        return num, self.chunk_steps, self.action_size

    def _planned(self, z: Floats, noise: Floats) -> Floats:
        if z.ndim != 2 or z.shape[1] != self.z_size:
            raise ValueError(f"latents of shape {z.shape} do not fit a policy over (N, {self.z_size})")
        device = next(self.network.parameters()).device
        with torch.no_grad():
            made = self.plan(torch.from_numpy(z).to(device), torch.from_numpy(noise).to(device))
        return np.asarray(made.cpu().numpy(), np.float32)


class TemporalEnsemble:
    """Plans at every step and takes the weighted mean of all plans of that step (Zhao et al. 2023, algorithm 2).

    The weight of the plan made i steps after the oldest that reaches this step is exp(-decay i), before they are
    divided by their sum. Actions of two levels are as the newest plan has them: a mean of levels is none.

    Args:
        plan: makes chunks.
        shape: K and A.
        decay: per step.
        binary_actions: actions of two levels.
    """

    def __init__(
        self, plan: Plan, shape: tuple[int, int], decay: float = ENSEMBLE_DECAY, binary_actions: Sequence[int] = ()
    ) -> None:
        self._plan, self._shape, self._decay, self._binary_actions = plan, shape, decay, list(binary_actions)
        self._plans: list[Floats] = []  # oldest first

    def __call__(self, seen: Seen, step: int) -> Floats:
        """Actions (N, A). At step 0 all episodes begin."""
        kept = [] if step == 0 else self._plans[-(self._shape[0] - 1) :] if self._shape[0] > 1 else []
        self._plans = [*kept, self._plan(seen, np.zeros((_count(seen), *self._shape), np.float32))]
        ages = range(len(self._plans) - 1, -1, -1)
        planned = np.stack([plan[:, age] for plan, age in zip(self._plans, ages, strict=True)])
        weights = np.exp(-self._decay * np.arange(len(planned)))
        actions = np.tensordot(weights / weights.sum(), planned, 1).astype(np.float32)
        actions[:, self._binary_actions] = planned[-1][:, self._binary_actions]
        return actions


class PlanQueue:
    """Follows the first half of a plan, then plans again: a mean of plans of several modes would be of none.

    Noise comes from one stream of fixed seed, so that the same calls give the same actions.
    """

    def __init__(self, plan: Plan, shape: tuple[int, int]) -> None:
        self._plan, self._shape = plan, shape
        self._noise = numpy_generator(0, "policy", "plan queue")
        self._chunk, self._made = np.zeros((0, *shape), np.float32), 0

    def __call__(self, seen: Seen, step: int) -> Floats:
        """Actions (N, A). At step 0 all episodes begin."""
        if step == 0 or step - self._made >= max(1, self._shape[0] // 2):
            noise = self._noise.standard_normal((_count(seen), *self._shape), np.float32)
            self._chunk, self._made = self._plan(seen, noise), step
        return self._chunk[:, step - self._made]


def acting_of(
    kind: str, plan: Plan, shape: tuple[int, int], binary_actions: Sequence[int] = ()
) -> TemporalEnsemble | PlanQueue:
    """How plans of a kind of network become actions: an ensemble for `act`, a queue for `flow`."""
    return TemporalEnsemble(plan, shape, binary_actions=binary_actions) if kind == "act" else PlanQueue(plan, shape)


def _count(seen: Seen) -> int:
    return len(next(iter(seen.values())) if isinstance(seen, Mapping) else seen)
