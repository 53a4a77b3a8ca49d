"""Fitted Q evaluation: what policies would earn, told from recorded episodes alone (Le, Voloshin and Yue 2019).

Shapes: P policies, M ensemble members, B rows, N episodes, T steps, D latent dimensions, A action dimensions. Members
and policies are one batched product. Every member is fitted on its own bootstrap of the episodes, the same for all
policies, so that differences between policies are paired. The interval is theirs, and knows nothing of the bias that
all of them share where a policy leaves the data; `support` tells how far it does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.config.evaluation import FqeConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.policy.networks import make_stack
from phaseb.seeding import derive_seed, numpy_generator

Act = Callable[[Tensor], Tensor]
"""Latents (N, D) to actions (N, A) in [-1, 1]: an `Actor`."""
Pool = tuple[NDArray[Any], NDArray[Any]]
"""The episodes of a bootstrap, and the rows that they bring."""


@dataclass(frozen=True)
class FqeResult:
    """Attributes:
    values: (P, M) mean discounted return from the episodes' first states, one a member.
    support: (P,) root mean squared distance of the policy's action to the recorded one; 2 is the whole range.
    """

    values: NDArray[np.float64]
    support: NDArray[np.float64]

    def interval(self, policy: int, confidence: float = 0.95) -> tuple[float, float, float]:
        """Mean and bootstrap interval of one policy's value."""
        return _interval(self.values[policy], confidence)

    def difference(self, candidate: int, baseline: int, confidence: float = 0.95) -> tuple[float, float, float]:
        """Mean and bootstrap interval of the difference of two policies, paired by member."""
        return _interval(self.values[candidate] - self.values[baseline], confidence)


def fitted_q_evaluation(
    config: FqeConfig, actors: Sequence[Act], episodes: Trajectories, seed: int,
    device: torch.device | None = None,
) -> FqeResult:  # fmt: skip
    """Evaluate policies on real episodes.

    While fitting, rewards are scaled to unit spread and values are told as differences from the best constant, so
    that one learning rate serves every task. The last step of an episode that did not end the task bootstraps from
    its successor like any other.

    Args:
        actors: deterministic policies over the episodes' latents.
        episodes: real ones, better not those that the policies were trained on.
        seed: draws weights, bootstraps and batches.
    """
    device = device or torch.device("cpu")
    rows = _Rows(episodes, actors, device)
    scale = max(float(rows.reward.std()), 1e-6)
    num_policies, members = len(actors), config.num_members
    sizes = [rows.z.shape[1] + rows.action.shape[1], *[config.width] * config.num_layers, 1]
    seeds = [derive_seed(seed, "fqe")] * num_policies
    online, slow = (make_stack(sizes, seeds, "fqe", members, norm=True).to(device) for _ in range(2))
    slow.requires_grad_(False)
    optimiser = torch.optim.AdamW(online.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    pools = _bootstraps(rows.episode, members, seed)
    alive = config.discount * (1 - rows.terminal)
    constant = float(rows.reward.mean() / (1 - alive.mean()))
    reward = (rows.reward + alive * constant - constant) / scale
    for step in range(config.num_steps):
        index = _batch(pools, config.batch_size, seed, step).to(device)  # (M, B), the same for every policy
        with torch.no_grad():
            successors = slow(_pair(rows.next_z, rows.next_actions, index))[..., 0]
            target = reward[index].repeat(num_policies, 1) + alive[index].repeat(num_policies, 1) * successors
        stored = rows.action[None].expand(num_policies, -1, -1)
        loss = (online(_pair(rows.z, stored, index))[..., 0] - target).square().mean(1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for old, new in zip(slow.parameters(), online.parameters(), strict=True):
                old.lerp_(new, config.target_rate)
    values = _start_values(slow, rows, pools, num_policies)
    return FqeResult(values * scale + constant, rows.support)


class _Rows:
    """Transitions of the episodes and the policies' actions at their ends."""

    def __init__(self, episodes: Trajectories, actors: Sequence[Act], device: torch.device) -> None:
        mask = episodes.mask

        def put(array: NDArray[np.floating]) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array[mask], np.float32), device=device)

        self.z, self.next_z = put(episodes.z[:, :-1]), put(episodes.z[:, 1:])
        self.action, self.reward, self.terminal = (
            put(episodes.actions), put(episodes.rewards), put(episodes.terminals)
        )  # fmt: skip
        self.episode = np.nonzero(mask)[0]
        self.starts = torch.as_tensor(np.ascontiguousarray(episodes.z[:, 0], np.float32), device=device)
        with torch.no_grad():
            self.next_actions = torch.stack([actor(self.next_z) for actor in actors])
            self.start_actions = torch.stack([actor(self.starts) for actor in actors])
            own = torch.stack([actor(self.z) for actor in actors])
        self.support = (own - self.action).square().mean((1, 2)).sqrt().cpu().numpy().astype(np.float64)


def _pair(z: Tensor, actions_P: Tensor, index_MB: Tensor) -> Tensor:
    """Inputs (P * M, B, D + A): rows `index` of the latents and of every policy's actions."""
    members, rows = index_MB.shape
    chosen = actions_P[:, index_MB]  # (P, M, B, A)
    latents = z[index_MB][None].expand(len(actions_P), -1, -1, -1)
    return torch.cat([latents, chosen], -1).view(len(actions_P) * members, rows, -1)


def _bootstraps(episode_of_row: NDArray[np.int64], members: int, seed: int) -> list[Pool]:
    """For each member: its episodes (resampled with replacement) and the rows that they bring."""
    count = int(episode_of_row.max()) + 1
    rows_of = [np.flatnonzero(episode_of_row == e) for e in range(count)]
    pools: list[Pool] = []
    for member in range(members):
        chosen = numpy_generator(seed, "fqe bootstrap", member).integers(count, size=count)
        pools.append((chosen, np.concatenate([rows_of[e] for e in chosen])))
    return pools


def _batch(pools: list[Pool], size: int, seed: int, step: int) -> Tensor:
    places = numpy_generator(seed, "fqe batch", step).random((len(pools), size))
    chosen = [rows[(p * len(rows)).astype(int)] for (_, rows), p in zip(pools, places, strict=True)]
    return torch.from_numpy(np.stack(chosen))


def _start_values(
    slow: torch.nn.Module, rows: _Rows, pools: list[Pool], num_policies: int
) -> NDArray[np.float64]:
    starts = torch.from_numpy(np.stack([chosen for chosen, _ in pools])).to(rows.z.device)
    with torch.no_grad():
        values = slow(_pair(rows.starts, rows.start_actions, starts))[..., 0].mean(1)
    return values.view(num_policies, len(pools)).cpu().numpy().astype(np.float64)


def _interval(values: NDArray[np.float64], confidence: float) -> tuple[float, float, float]:
    tail = (1 - confidence) / 2
    return float(values.mean()), float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))
