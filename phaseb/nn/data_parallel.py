"""What a learner knows of its fellow workers: its share of the global batch, and the mean of all gradients.

The algorithm of DistributedDataParallel, by hand: each worker computes the gradient of its rows, one flat all-reduce
averages them. By hand, because one learner here has several optimisers, free-running rollouts and networks batched
over runs, which a wrapper around `forward` does not fit; and because the global batch is drawn by name (`seeding`),
so that one worker and many make the same update.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed


@dataclass(frozen=True)
class WorkerContext:
    """Seed, place among the workers, and device of one learner; `group` are the workers that share, None: all.

    `graphs` says that what a step repeats may be captured as CUDA graphs, where the device is a GPU.
    """

    seed: int
    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    group: distributed.ProcessGroup | None = None
    graphs: bool = True

    @property
    def captures(self) -> bool:
        """Whether a learner replays its steps as CUDA graphs."""
        return self.graphs and self.device.type == "cuda"

    def shard(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """This worker's part of a global batch of row numbers (contiguous, equal parts).

        Raises:
            ValueError: where the batch does not divide by the number of workers (the mean would be biased).
        """
        if len(rows) % self.world_size:
            raise ValueError(f"a global batch of {len(rows)} does not divide by {self.world_size} workers")
        size = len(rows) // self.world_size
        return rows[self.rank * size : (self.rank + 1) * size]

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its mean over the workers: one all-reduce of one flat buffer."""
        if self.world_size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        distributed.all_reduce(flat, group=self.group)
        flat /= self.world_size
        offset = 0
        for gradient in gradients:
            gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
            offset += gradient.numel()

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the workers."""
        return value if self.world_size == 1 else self.all_reduce_sum(value) / self.world_size

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the workers."""
        if self.world_size == 1:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total, group=self.group)
        return total


def num_active_workers(wanted: int, there: int) -> int:
    """How many of the workers that are there share batches cut for the number wanted: as many as divide it.

    Where one of 4 is lost, 2 share (a batch that divides by 4 need not divide by 3), and the third stands by.
    """
    return max(n for n in range(1, max(1, min(wanted, there)) + 1) if wanted % n == 0)
