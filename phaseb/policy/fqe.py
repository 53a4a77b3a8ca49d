"""Fitted Q evaluation: what policies would earn, told from recorded episodes alone (Le, Voloshin and Yue 2019).

The value functions are extremely randomised trees over (latents, action), grown once to tell reward and next latents,
whose leaves then hold values (Ernst, Geurts and Wehenkel 2005): Q(s, a) is a mean of targets that were recorded, so
fitting it again and again converges whatever the policy, and no value beyond the data is ever made up. Where a reward
hangs on a threshold (a gripper that shuts in time or late) trees find it in a few thousand rows; networks of the same
cost did not tell policies apart (docs/do-no-harm.md).

Shapes: P policies, M ensemble members, B rows, K trees, D latent dimensions, A action dimensions. Every member has
trees and a bootstrap of the episodes of its own, the same for all policies, so that differences between policies are
paired. The interval is theirs, and knows nothing of the bias that all of them share where a policy leaves the data;
`support` tells how far it does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor
from torch import Tensor

from phaseb.config.evaluation import FqeConfig
from phaseb.episodes.resolution import spread_of
from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.seeding import derive_seed, numpy_generator

DISCOUNT = 0.97
"""A step. It is one for all policies, so that their values compare."""
NUM_TREES = 8
"""Randomised trees of each member."""
MIN_LEAF = 2
"""Fewest recorded steps whose mean a leaf is."""

Act = Callable[[Tensor], Tensor]
"""Latents (N, D) to actions (N, A) in [-1, 1]: an `Actor`."""
Floats = NDArray[np.float64]

REWARD_EMPHASIS = 3.0  # of the reward's spread against a latent's, where trees choose their cuts
TOLERANCE = 1e-4  # of the rewards' spread: values that move less have settled


@dataclass(frozen=True)
class FqeResult:
    """Attributes:
    values: (P, M) mean discounted return from the episodes' first states, one a member.
    support: (P,) root mean squared distance of the policy's action to the recorded one; 2 is the whole range.
    """

    values: Floats
    support: Floats

    def interval(self, policy: int, confidence: float = 0.95) -> tuple[float, float, float]:
        """Mean and bootstrap interval of one policy's value."""
        return _interval(self.values[policy], confidence)

    def difference(self, candidate: int, baseline: int, confidence: float = 0.95) -> tuple[float, float, float]:
        """Mean and bootstrap interval of the difference of two policies, paired by member."""
        return _interval(self.values[candidate] - self.values[baseline], confidence)


def fitted_q_evaluation(config: FqeConfig, actors: Sequence[Act], episodes: Trajectories, seed: int) -> FqeResult:
    """Evaluate policies on real episodes.

    The last step of an episode that did not end the task is followed by its successor's value like any other.

    Args:
        actors: deterministic policies over the episodes' latents.
        episodes: real ones; those that the policies were trained on may be among them, others must be.
        seed: draws bootstraps and trees.
    """
    rows = _Rows(episodes, actors)
    values = np.empty((len(actors), config.num_members))
    for member in range(config.num_members):
        count = len(episodes)
        drawn = numpy_generator(seed, "fqe bootstrap", member).integers(count, size=count)
        times = np.bincount(drawn, minlength=count).astype(np.float64)
        forest = _Forest(config, rows, times[rows.episode], derive_seed(seed, "fqe trees", member) % 2**31)
        for policy in range(len(actors)):
            held = forest.evaluate(rows.next_pairs[policy])
            values[policy, member] = np.average(forest.values(rows.start_pairs[policy], held), weights=times)
    return FqeResult(values, rows.support)


class _Rows:
    """Transitions of the episodes and the policies' actions at their ends."""

    def __init__(self, episodes: Trajectories, actors: Sequence[Act]) -> None:
        mask = episodes.mask
        z, next_z, actions = episodes.z[:, :-1][mask], episodes.z[:, 1:][mask], episodes.actions[mask]
        self.reward, self.terminal = (x[mask].astype(np.float64) for x in (episodes.rewards, episodes.terminals))
        self.episode = np.nonzero(mask)[0]
        self.pairs = np.concatenate([z, actions], 1)
        self.moves = (next_z - z).astype(np.float64)
        self.next_pairs = [_pairs(next_z, actor) for actor in actors]
        self.start_pairs = [_pairs(episodes.z[:, 0], actor) for actor in actors]
        own = [_pairs(z, actor)[:, z.shape[1] :] for actor in actors]
        self.support = np.array([np.sqrt(np.square(taken - actions).mean()) for taken in own], np.float64)


class _Forest:
    """One member: its trees, and the values of a policy that their leaves settle at.

    Args:
        weight: (B,) times that each row's episode was drawn.
    """

    def __init__(self, config: FqeConfig, rows: _Rows, weight: Floats, seed: int) -> None:
        self._drawn = weight > 0
        self._weight, self._reward = weight[self._drawn], rows.reward[self._drawn]
        self._alive = DISCOUNT * (1 - rows.terminal[self._drawn])
        moves = rows.moves[self._drawn]
        spread = float(spread_of(self._reward[:, None])[0])
        told = np.column_stack(
            [REWARD_EMPHASIS * (self._reward - self._reward.mean()) / spread, moves / np.maximum(moves.std(0), 1e-3)]
        )
        self._trees = ExtraTreesRegressor(
            NUM_TREES, min_samples_leaf=MIN_LEAF, max_features=1.0, random_state=seed, n_jobs=1
        ).fit(rows.pairs[self._drawn], told, sample_weight=self._weight)
        self._width = 1 + max(int(tree.tree_.node_count) for tree in self._trees.estimators_)
        self._own = self._leaves(rows.pairs[self._drawn])
        self._size = np.bincount(self._own.ravel(), np.repeat(self._weight, NUM_TREES), self._num_leaves)
        self._settled = TOLERANCE * spread
        self._rounds = int(np.ceil(np.log(1e-6) / np.log(DISCOUNT)))

    @property
    def _num_leaves(self) -> int:
        return self._width * len(self._trees.estimators_)

    def evaluate(self, next_pairs: NDArray[np.float32]) -> Floats:
        """What the leaves hold for the policy that acts so at the rows' ends: the fixed point of Q = mean(r + g Q')."""
        successors = self._leaves(next_pairs[self._drawn])
        after = np.full(len(self._reward), self._reward.mean() / (1 - self._alive.mean()))
        held = np.zeros(self._num_leaves)
        for _ in range(self._rounds):
            target = np.repeat(self._weight * (self._reward + self._alive * after), successors.shape[1])
            held = np.bincount(self._own.ravel(), target, self._num_leaves) / np.maximum(self._size, 1e-9)
            before, after = after, held[successors].mean(1)
            if np.abs(after - before).max() < self._settled:
                break
        return held

    def values(self, pairs: NDArray[np.float32], held: Floats) -> Floats:
        return np.asarray(held[self._leaves(pairs)].mean(1))

    def _leaves(self, pairs: NDArray[np.float32]) -> NDArray[np.int64]:
        """(B, K) the leaf that each pair falls into, numbered through all trees."""
        offsets = self._width * np.arange(len(self._trees.estimators_))
        return np.asarray(self._trees.apply(pairs), np.int64) + offsets


def _pairs(z: NDArray[np.float32], actor: Act) -> NDArray[np.float32]:
    with torch.no_grad():
        actions: Any = actor(torch.from_numpy(np.ascontiguousarray(z, np.float32))).cpu().numpy()
    return np.concatenate([z, actions], 1).astype(np.float32)


def _interval(values: Floats, confidence: float) -> tuple[float, float, float]:
    tail = (1 - confidence) / 2
    return float(values.mean()), float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))
