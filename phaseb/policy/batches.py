"""What a learner is fed: runs, batches by step, and the noise that goes with a batch.

Shapes: R runs, B rows of a batch (this worker's part of it, where there are several workers), D latent dimensions,
A action dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.config.policy import PolicyConfig
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.rewards import RewardNormalizer
from phaseb.runtime.seeding import derive_seed, torch_generator

NOISE_BLOCK = 64  # steps whose noise is drawn at once: making a generator costs as much as drawing from it


@dataclass(frozen=True)
class RunSpec:
    """One policy to be trained.

    Attributes:
        arm: the name of its way to train.
        seed: with the learner's own, draws its weights and its noise; arms that share a seed are paired.
        scalars: settings of `policy.offline` in which this run differs, by name (see `RunScalars`).
        learner: how it learns, a name under `policy.learners`; empty: as `policy` stands.
        clones: whether it learns nothing but recorded actions, which then drive its rollouts too.
        state_noise: standard deviation of noise on the latents that it learns from.
    """

    arm: str
    seed: int
    scalars: Mapping[str, float] = field(default_factory=dict)
    learner: str = ""
    clones: bool = False
    state_noise: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.arm}/{self.seed}"

    def drawn(self, seed: int) -> int:
        """The seed of this run's streams under the learner's seed."""
        return derive_seed(seed, "policy run", self.seed)


class BatchSource(Protocol):
    """Batches by learner step: the same step gives the same batch, whenever it is asked for."""

    def sample(self, step: int, num_batches: int) -> Mapping[str, NDArray[Any]]:
        """This worker's part of the batches of steps `step` to `step + num_batches - 1`: (num_batches, R, B, ...).

        Keys: z, action, reward, next_z, discount (0 at a terminal, else gamma^n), is_synthetic, weight, and
        optionally cut (1 where the recording or rollout stopped there although the task had not ended).
        """
        ...


class Batch(NamedTuple):
    """The rows of one step, for R runs."""

    z: Tensor  # (R, B, D)
    action: Tensor  # (R, B, A)
    reward: Tensor  # (R, B)
    next_z: Tensor  # (R, B, D)
    discount: Tensor  # (R, B)
    real: Tensor  # (R, B) 1 on real rows, 0 on synthetic ones
    weight: Tensor  # (R, B) importance weights of the losses
    cut: Tensor  # (R, B) 1 where a synthetic rollout stopped: a state that no row continues from
    chunk: Tensor  # (R, B, K, A) the actions from the row on; zeros beyond its episode's end
    chunk_share: Tensor  # (R, B, K) share of the row's weight that each of them has; 0 beyond the end

    def runs(self, rows: slice | list[int]) -> "Batch":
        return Batch(*(column[rows] for column in self))


class Noise(NamedTuple):
    """The random numbers of one step."""

    target: Tensor  # (R, B, A) standard normal: the next action of the critics' targets
    policy: Tensor  # (R, B, A) standard normal: the action of the policy's own step
    pair: Tensor  # (R, 2) int64: two different critics
    other: Tensor  # (R, 2, K, B, A) for the conservative penalty: uniform in [-1, 1], and standard normal


def to_batches(
    arrays: Mapping[str, NDArray[Any]], context: WorkerContext, rewards: RewardNormalizer | None = None
) -> list[Batch]:
    """Tensors of this worker's rows, one batch a step, their rewards normalised.

    Weights are divided by their mean over all workers' rows.
    """
    synthetic = np.asarray(arrays["is_synthetic"], np.float32)
    columns = {
        **{name: arrays[name] for name in ("z", "action", "next_z", "discount", "weight")},
        "reward": (rewards or RewardNormalizer())(arrays["reward"], arrays["discount"]),
        "real": 1.0 - synthetic,
        "cut": synthetic * np.asarray(arrays.get("cut", 0.0), np.float32),
        "chunk": arrays["chunk"] if "chunk" in arrays else arrays["action"][..., None, :],
        "chunk_share": arrays["chunk_share"] if "chunk" in arrays else np.ones_like(synthetic)[..., None],
    }
    tensors = {
        name: torch.from_numpy(np.array(column, np.float32)).to(context.device) for name, column in columns.items()
    }
    tensors["weight"] /= context.all_reduce_mean(tensors["weight"].mean(-1, keepdim=True)).clamp(min=1e-6)
    num_batches = len(synthetic)
    return [Batch(**{name: tensor[i] for name, tensor in tensors.items()}) for i in range(num_batches)]


def jitter(batch: Batch, specs: Sequence[RunSpec], step: int, config: PolicyConfig, context: WorkerContext) -> Batch:
    """The batch with noise on the latents of the runs that ask for it, the same for one worker and for many."""
    if not any(spec.state_noise for spec in specs):
        return batch
    z, mine = batch.z.clone(), context.shard(np.arange(config.batch_size))
    for run, spec in enumerate(specs):
        if spec.state_noise:
            generator = torch_generator(spec.drawn(context.seed), "policy", "state noise", step)
            noise = torch.randn(config.batch_size, z.shape[-1], generator=generator)
            z[run] += spec.state_noise * noise[torch.from_numpy(mine)].to(z.device)
    return batch._replace(z=z)


class NoiseStream:
    """Noise by (run's seed, step): no state to save, the same for one worker and for many, alone and together."""

    def __init__(self, seeds: Sequence[int], rows: int, action_size: int, num_critics: int, others: int) -> None:
        self.seeds = list(seeds)
        self.rows, self.action_size, self.num_critics, self.others = rows, action_size, num_critics, others
        self._block = -1
        self._drawn: Noise | None = None

    def at(self, step: int, context: WorkerContext) -> Noise:
        """The noise of a step, this worker's rows."""
        block, offset = divmod(step, NOISE_BLOCK)
        if block != self._block or self._drawn is None:
            drawn = {seed: self._draw(seed, block) for seed in set(self.seeds)}
            columns = (torch.stack(parts, 1) for parts in zip(*(drawn[s] for s in self.seeds), strict=True))
            self._drawn = Noise(*(column.to(context.device) for column in columns))
            self._block = block
        mine = context.shard(np.arange(self.rows))
        part = slice(int(mine[0]), int(mine[-1]) + 1)
        target, policy, pair, other = (column[offset] for column in self._drawn)
        return Noise(target[:, part], policy[:, part], pair, other[:, :, :, part])

    def _draw(self, seed: int, block: int) -> Noise:
        generator = torch_generator(seed, "policy", "noise", block)
        size = (NOISE_BLOCK, self.rows, self.action_size)
        target, policy = (torch.randn(*size, generator=generator) for _ in range(2))
        pair = torch.rand(NOISE_BLOCK, self.num_critics, generator=generator).argsort(1)[:, :2]
        many = (NOISE_BLOCK, self.others, self.rows, self.action_size)
        uniform = torch.rand(*many, generator=generator) * 2 - 1
        return Noise(target, policy, pair, torch.stack([uniform, torch.randn(*many, generator=generator)], 1))
