"""Behaviour cloning of chunks of actions: one update of R policies, each with weights of its own.

Shapes: R runs, B rows, K steps of a chunk, D latent dimensions, A action dimensions, S style dimensions.
"""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import NOISE_BLOCK, Batch, RunSpec
from phaseb.policy.chunk_networks import NETWORKS, NUM_HEADS, STYLE_SIZE, ActNetwork, ChunkSizes, FlowNetwork
from phaseb.policy.chunk_policy import ChunkPolicy
from phaseb.policy.networks import binary_loss
from phaseb.policy.optimiser_state import moments_of, set_moments
from phaseb.policy.run_group import Metrics, RunGroup
from phaseb.policy.sac import CLONE_LR, MAX_GRAD_NORM, polyak_update
from phaseb.runtime.seeding import derive_seed, torch_generator

STYLE_WEIGHT = 10.0
"""Weight of the style's divergence from its prior: the paper's. With less, styles tell when a gripper closes."""


class ChunkNoise(NamedTuple):
    """The random numbers of one step."""

    chunk: Tensor  # (R, B, K, A) standard normal: where a flow starts
    time: Tensor  # (R, B) uniform in [0, 1)
    style: Tensor  # (R, B, S) standard normal


class ChunkCloning(RunGroup[ChunkNoise]):
    """Networks, optimiser and one update of R runs that clone chunks. A row counts with its weight, synthetic or not.

    Runs share nothing but the step, so a run ends in the same policy whoever trains beside it.
    """

    def build(self, z_size: int, action_size: int) -> None:
        width = NUM_HEADS * max(2, self.config.width // (3 * NUM_HEADS))
        sizes = ChunkSizes(z_size, action_size, self.config.chunk_steps, width)
        made = [self._network(sizes, spec) for spec in self.specs]
        self.actors = nn.ModuleList(made).to(self.context.device)
        self.average = copy.deepcopy(self.actors).requires_grad_(False)
        parameters = list(self.actors.parameters())
        self.optimiser = torch.optim.Adam(parameters, lr=CLONE_LR, fused=True)

    def _network(self, sizes: ChunkSizes, spec: RunSpec) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(spec.drawn(self.context.seed), "policy", "chunk network") % 2**63)
            return NETWORKS[self.config.offline.algorithm](sizes)

    def update(self, batch: Batch, noise: ChunkNoise, step: int) -> Metrics:
        """One step on this worker's rows. Returns metrics by name, each (R,)."""
        losses, last = [], []
        for run, network in enumerate(self.actors):
            rows = Batch(*(column[run] for column in batch))
            drawn = ChunkNoise(*(column[run] for column in noise))
            loss = self._act_loss if isinstance(network, ActNetwork) else self._flow_loss
            losses.append(loss(network, rows, drawn))
        parameters = list(self.actors.parameters())
        gradients = torch.autograd.grad(torch.stack(losses).sum(), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.contiguous()
        self.context.average_gradients(parameters)
        for network in self.actors:
            last.append(torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM))
        self.optimiser.step()
        polyak_update(self.average, self.actors, self.config.actor_ema)
        return {"actor_loss": torch.stack(losses).detach(), "actor_gradient": torch.stack(last)}

    def _act_loss(self, network: Any, rows: Batch, noise: ChunkNoise) -> Tensor:
        """Absolute error of the chunk, and the style's divergence (Zhao et al. 2023, section IV-C).

        An action of two levels has its negative log likelihood for an error: a median would never dare a rare level.
        """
        weight = rows.weight[:, None] * rows.chunk_share
        inside = (rows.chunk_share > 0).to(rows.chunk)
        mean, log_variance = network.encode(rows.z, rows.chunk, inside)
        made = network(rows.z, mean + (0.5 * log_variance).exp() * noise.style)
        error = self._mean(self._distance(made, rows.chunk).mean(-1), weight)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        return error + STYLE_WEIGHT * self._mean(divergence, weight[:, 0])

    def _distance(self, made: Tensor, chunk: Tensor) -> Tensor:
        error = (made - chunk).abs()
        if self.levels is None:
            return error
        low, high = self.levels.to(made).unbind(-1)
        middle = (low + high) / 2
        return torch.where(low < high, binary_loss(made - middle, chunk > middle), error)

    def _flow_loss(self, network: Any, rows: Batch, noise: ChunkNoise) -> Tensor:
        """Squared error of the velocity on the straight path from noise to chunk (Lipman et al. 2023, equation 23)."""
        weight = rows.weight[:, None] * rows.chunk_share
        padded = rows.chunk_share <= 0
        padded = padded & ~padded[:, :1]  # a row without weight counts nowhere, and attention needs a step
        time = noise.time[:, None, None]
        noisy = (1 - time) * noise.chunk + time * rows.chunk
        velocity = network(rows.z, noisy, noise.time, padded)
        return self._mean((velocity - (rows.chunk - noise.chunk)).square().mean(-1), weight)

    def _mean(self, error: Tensor, weight: Tensor) -> Tensor:
        """The weighted mean over all workers' rows, as this worker's part of it."""
        total = self.context.all_reduce_mean(weight.detach().mean())
        return (weight * error).mean() / total.clamp(min=1e-9)

    def policy(self, place: int) -> ChunkPolicy:
        """A copy of one run's policy, averaged over its last steps."""
        network = copy.deepcopy(self.average[place])
        assert isinstance(network, (ActNetwork, FlowNetwork))
        return ChunkPolicy(network, self.levels)

    def noise_stream(self) -> "ChunkNoiseStream":
        return ChunkNoiseStream(self)

    def networks(self) -> list[nn.Module]:
        """Those that every update calls."""
        return list(self.actors)

    def state_dict(self) -> dict[str, Any]:
        return {
            "actor": self.actors.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": moments_of(self.optimiser),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.actors.load_state_dict(state["actor"])
        self.average.load_state_dict(state["average"])
        set_moments(self.optimiser, state.get("optimiser", {}))


class ChunkNoiseStream:
    """Noise by (run's seed, step): no state to save, the same for one worker and for many, alone and together."""

    def __init__(self, update: ChunkCloning) -> None:
        self._seeds = [spec.drawn(update.context.seed) for spec in update.specs]
        network = update.actors[0]
        assert isinstance(network, (ActNetwork, FlowNetwork))
        self._rows, self._sizes = update.config.batch_size, network.sizes
        self._block = -1
        self._drawn: ChunkNoise | None = None

    def at(self, step: int, context: WorkerContext) -> ChunkNoise:
        """The noise of a step, this worker's rows."""
        block, offset = divmod(step, NOISE_BLOCK)
        if block != self._block or self._drawn is None:
            columns = zip(*(self._draw(seed, block) for seed in self._seeds), strict=True)
            self._drawn, self._block = ChunkNoise(*(torch.stack(c, 1).to(context.device) for c in columns)), block
        mine = context.shard(np.arange(self._rows))
        part = slice(int(mine[0]), int(mine[-1]) + 1)
        return ChunkNoise(*(column[offset][:, part] for column in self._drawn))

    def _draw(self, seed: int, block: int) -> ChunkNoise:
        generator = torch_generator(seed, "policy", "chunk noise", block)
        size = (NOISE_BLOCK, self._rows)
        chunk = torch.randn(*size, self._sizes.steps, self._sizes.action, generator=generator)
        time = torch.rand(*size, generator=generator)
        return ChunkNoise(chunk, time, torch.randn(*size, STYLE_SIZE, generator=generator))
