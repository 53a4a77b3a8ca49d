"""EpisodeTrust and TemporalTrust: trust of an episode by its features, and of an episode and each transition by time.

Both are stacks of K networks, one a fold of the cross-fit. K folds, B episodes, T steps, I inputs, H units.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from phaseb.trust.batched import BatchedGRU, BatchedLinear


@dataclass(frozen=True)
class TrustSpec:
    """Sizes of the networks: what a checkpoint needs to build them again."""

    num_folds: int
    num_episode_inputs: int
    num_transition_inputs: int
    mlp_units: int
    gru_units: int
    context_steps: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class EpisodeTrust(nn.Module):
    """The report's trust_net: an MLP from an episode's features to its log-odds of being real."""

    def __init__(self, spec: TrustSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.first = BatchedLinear(spec.num_folds, spec.num_episode_inputs, spec.mlp_units, generator)
        self.second = BatchedLinear(spec.num_folds, spec.mlp_units, spec.mlp_units, generator)
        self.readout = BatchedLinear(spec.num_folds, spec.mlp_units, 1, generator)

    def forward(self, features: Tensor) -> Tensor:
        """(K, B, I) → (K, B)."""
        hidden = torch.relu(self.second(torch.relu(self.first(features))))
        return torch.as_tensor(self.readout(hidden)[..., 0])


class TemporalTrust(nn.Module):
    """Log-odds of the whole episode from a GRU over (z, Δz, a, r), and of every transition from its per-step output.

    The GRU reads windows of a few steps, and it reads them both ways in time, because a rollout is weighed when it is
    complete: what was right before a step and wrong ever after tells that it was this step that went wrong.
    """

    def __init__(self, spec: TrustSpec, generator: torch.Generator) -> None:
        super().__init__()
        k, units = spec.num_folds, spec.gru_units
        self.context_steps = spec.context_steps
        self.inner = BatchedLinear(k, spec.num_transition_inputs, units, generator)
        self.local = BatchedLinear(k, (2 * spec.context_steps + 1) * units, units, generator)
        self.num_folds, half = k, max(units // 2, 1)
        self.recurrent = BatchedGRU(2 * k, units, half, generator)
        self.mixed = BatchedLinear(k, 2 * units + 2 * half, units, generator)
        self.step_readout = BatchedLinear(k, units + spec.num_transition_inputs, 1, generator)
        self.readout = BatchedLinear(k, 2 * units + 2, 1, generator)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Transition inputs (K, B, T, I) and mask (K, B, T) → log-odds of episodes (K, B), of transitions (K, B, T)."""
        inner = torch.relu(self.inner(x)) * mask[..., None]
        padded = nn.functional.pad(inner, (0, 0, self.context_steps, self.context_steps))
        around = torch.cat([padded[:, :, i : i + x.shape[2]] for i in range(2 * self.context_steps + 1)], dim=-1)
        local = torch.relu(self.local(around))
        back = _reverse_index(mask)[..., None].expand_as(local)
        forwards, backwards = self.recurrent(torch.cat([local, local.gather(2, back)])).split(self.num_folds)
        backwards = backwards.gather(2, back[..., : backwards.shape[-1]])
        hidden = torch.relu(self.mixed(torch.cat([inner, local, forwards, backwards], dim=-1)))
        steps = self.step_readout(torch.cat([hidden, x], dim=-1))[..., 0]
        return self._episode(hidden, steps, mask), steps

    def _episode(self, hidden: Tensor, steps: Tensor, mask: Tensor) -> Tensor:
        """Read out mean and maximum of the states, mean and minimum of the transitions' log-odds."""
        weight = mask.to(hidden.dtype) / mask.sum(-1, keepdim=True).clamp(min=1)
        mean, odds = (hidden * weight[..., None]).sum(2), (steps * weight).sum(2, keepdim=True)
        highest = hidden.masked_fill(~mask[..., None], 0).amax(2)
        lowest = steps.masked_fill(~mask, torch.inf).amin(2, keepdim=True)
        pooled = torch.cat([mean, highest, odds / 4, lowest / 4], dim=-1)
        return torch.as_tensor(self.readout(pooled)[..., 0])


class TrustNetworks(nn.Module):
    """The networks of the gate, with the standardisation of their inputs."""

    def __init__(self, spec: TrustSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.spec = spec
        self.episode = EpisodeTrust(spec, generator)
        self.temporal = TemporalTrust(spec, generator)
        for name, size in (("episode", spec.num_episode_inputs), ("transition", spec.num_transition_inputs)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))

    def standardise(self, name: str, x: Tensor) -> Tensor:
        """Inputs of the `episode` or the `transition` network in units of the real training set, within ±8."""
        mean, scale = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_scale")
        return ((x - mean) / scale).clamp(-8, 8)

    def forward(self, episodes: Tensor, transitions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-odds by the episode network (K, B), the temporal network (K, B), and of transitions (K, B, T)."""
        temporal, steps = self.temporal(transitions, mask)
        return self.episode(episodes), temporal, steps


def _reverse_index(mask: Tensor) -> Tensor:
    """(…, T) positions that turn the steps in mask round and leave the padding behind them; its own inverse."""
    length = mask.sum(-1, keepdim=True)
    position = torch.arange(mask.shape[-1], device=mask.device).expand(mask.shape)
    return torch.where(position < length, length - 1 - position, position)
