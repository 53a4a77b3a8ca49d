"""Batches of windows for K members, drawn by name so that any number of workers sees the same global batch.

Legend: N episodes, K members, B rows, W steps of a window, D latent, A action.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.gru_ensemble.action_lookahead import append_future_actions
from phaseb.episodes.trajectories import Floats, Trajectories
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.seeding import numpy_generator

BLIND_SHARE = 0.25
"""Share of training windows in which none is read ahead."""


@dataclass(frozen=True)
class Windows:
    """z (K, B, W+1, D), actions (K, B, W, A + L·(A + 1)) with L steps ahead, rewards, terminals and mask (K, B, W)."""

    z: Tensor
    actions: Tensor
    rewards: Tensor
    terminals: Tensor
    mask: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """All of them, as the constructor takes them."""
        return self.z, self.actions, self.rewards, self.terminals, self.mask


class WindowSampler:
    """Draws windows uniformly over all (episode, start) pairs; with a bootstrap, member k draws from its resampling.

    Inner coordinates and actions ahead are worked out for the windows drawn, so the episodes themselves are read where
    they lie: in memory that many trials share, for one.

    Args:
        mean, whiten: (D,), (D, D) from z to the inner coordinates in which windows are given; None leaves z as it is.
    """

    def __init__(
        self,
        data: Trajectories,
        config: GRUConfig,
        context: WorkerContext,
        mean: Floats | None = None,
        whiten: Floats | None = None,
    ) -> None:
        num_members = config.num_members
        self.context, self.config, self.lengths = context, config, data.lengths
        self.arrays = [_tensor(a, context) for a in (data.z, data.actions, data.rewards, data.terminals)]
        self.basis = None if mean is None or whiten is None else (_tensor(mean, context), _tensor(whiten, context))
        self.num_actions = data.actions.shape[-1]
        n = len(data)
        self.pools = np.tile(np.arange(n), (num_members, 1))

    def draw(self, name: str, step: int, batch_size: int, width: int) -> Windows:
        """This worker's share of the global batch called `name` of a step: windows of `width` steps."""
        rng = numpy_generator(self.context.seed, "batch", name, step)
        uniform, sighted = rng.random((2, batch_size, self.config.num_members))
        rows = self.context.shard(np.arange(batch_size))
        episodes, starts = self._locate(uniform[rows], width)
        found = self._gather(episodes.T, starts.T, width)
        blind = torch.as_tensor(BLIND_SHARE > sighted[rows].T, device=found.actions.device)
        found.actions[..., self.num_actions :].masked_fill_(blind[:, :, None, None], 0.0)
        return found

    def whole(self, most_steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Whole episodes, evenly spaced ones where they hold more than so many steps: inner coordinates (N, T+1, D),
        actions (N, T, A), what is read of them (N, T, ·), and the steps that exist (N, T)."""
        every = max(1, -(-self.arrays[1].shape[0] * self.arrays[1].shape[1] // most_steps))
        z, actions = (x[::every] for x in self.arrays[:2])
        mask = torch.from_numpy(np.arange(actions.shape[1]) < self.lengths[::every, None]).to(z.device)
        return self._inner(z), actions, append_future_actions(actions, self.config.action_lookahead, mask.float()), mask

    def _locate(self, uniform: NDArray[np.float64], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        episodes, starts = [], []
        for k, pool in enumerate(self.pools):
            places = np.maximum(self.lengths[pool] - width + 1, 1)
            ends = np.cumsum(places)
            flat = np.minimum((uniform[:, k] * ends[-1]).astype(np.int64), ends[-1] - 1)
            chosen = np.searchsorted(ends, flat, side="right")
            episodes.append(pool[chosen])
            starts.append(flat - (ends - places)[chosen])
        return np.stack(episodes, axis=1), np.stack(starts, axis=1)

    def _gather(self, episodes: NDArray[np.int64], starts: NDArray[np.int64], width: int) -> Windows:
        z, actions, rewards, terminals = self.arrays
        steps = starts[..., None] + np.arange(width + max(1, self.config.action_lookahead))
        mask = steps < self.lengths[episodes][..., None]
        rows = torch.as_tensor(episodes, device=z.device)[..., None]
        index = torch.as_tensor(np.minimum(steps[..., : width + 1], z.shape[1] - 1), device=z.device)
        taken = torch.as_tensor(np.minimum(steps, actions.shape[1] - 1), device=z.device)
        weight = torch.as_tensor(mask, dtype=torch.float32, device=z.device)
        seen = append_future_actions(actions[rows, taken], self.config.action_lookahead, weight)[..., :width, :]
        taken, weight = taken[..., :width], weight[..., :width]
        return Windows(self._inner(z[rows, index]), seen, rewards[rows, taken], terminals[rows, taken], weight)

    def _inner(self, z: Tensor) -> Tensor:
        return z if self.basis is None else (z - self.basis[0]) @ self.basis[1]


def _tensor(array: Floats, context: WorkerContext) -> Tensor:
    """The array itself as a tensor, which is only ever read; a copy on another device than the CPU."""
    floats = np.ascontiguousarray(array, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.as_tensor(floats, device=context.device)
