"""The policies that are played in closed loop: trained ones, the same with noise on their actions, a clone, chance.

N episodes, D latent dimensions, A action dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.root import Config
from phaseb.episodes.trajectories import Trajectories
from phaseb.policy.cloning import ClonedOperator, clone_operator
from phaseb.policy.trained_policy import ClosedLoopAct, load_policy
from phaseb.runtime.seeding import numpy_generator, torch_generator
from phaseb.runtime.storage import Store

NOISE_SHARES = (0.3, 0.6)
"""Shares of a uniformly random action that are mixed into a trained policy's: policies of lower quality."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class PoolPolicy:
    """A policy of the pool.

    Attributes:
        kind: trained by the run, a clone of the operators, or uniformly random actions.
        arm, seed: of a trained one.
        noise: share of a random action in each action.
    """

    kind: Literal["trained", "clone", "random"]
    arm: str = ""
    seed: int = 0
    noise: float = 0.0

    @property
    def name(self) -> str:
        if self.kind != "trained":
            return self.kind
        return f"{self.arm}/{self.seed}" + (f"+{self.noise:g}" if self.noise else "")


def pool_of(config: Config) -> tuple[PoolPolicy, ...]:
    """The clone, all arms with a few seeds each, the first seed of each with noise, and chance."""
    seeds = range(min(config.arms.num_seeds, config.closed_loop.num_seeds))
    trained = [PoolPolicy("trained", arm.name, seed) for arm in config.arms.trained for seed in seeds]
    noisy = [PoolPolicy("trained", arm.name, 0, share) for arm in config.arms.trained for share in NOISE_SHARES]
    return (PoolPolicy("clone"), *trained, *noisy, PoolPolicy("random"))


class PolicyMaker:
    """Makes the policies of a pool act, each with random numbers of its own.

    Args:
        store: folder of the trained policies.
        train: what the clone is fitted to.
    """

    def __init__(self, store: Store, train: Trajectories, clone_steps: int, seed: int) -> None:
        self._store, self._train, self._steps, self._seed = store, train, clone_steps, seed
        self._clone: ClonedOperator | None = None

    def __call__(self, policy: PoolPolicy, where: str) -> ClosedLoopAct:
        """A policy that starts anew; `where` names its stream of random numbers.

        Raises:
            DataError: where the policy was not trained, or its file is damaged.
        """
        plain = self._plain(policy, torch_generator(self._seed, "pool", policy.name, where))
        if not policy.noise:
            return plain
        noise = numpy_generator(self._seed, "pool noise", policy.name, where)

        def act(z: Floats, step: int) -> Floats:
            chosen = plain(z, step)
            mixed = (1 - policy.noise) * chosen + policy.noise * noise.uniform(-1, 1, chosen.shape)
            return np.asarray(mixed, np.float32)

        return act

    def _plain(self, policy: PoolPolicy, draws: torch.Generator) -> ClosedLoopAct:
        if policy.kind == "trained":
            return load_policy(self._store.folder(policy.arm, str(policy.seed))).closed_loop()
        if policy.kind == "clone":
            clone = self._cloned()
            return lambda z, step: clone.sample(torch.from_numpy(z), draws).numpy()
        size = self._train.actions.shape[-1]
        return lambda z, step: (2 * torch.rand(len(z), size, generator=draws) - 1).numpy()

    def _cloned(self) -> ClonedOperator:
        if self._clone is None:
            rows, mask = self._train, self._train.mask
            self._clone = clone_operator(rows.z[:, :-1][mask], rows.actions[mask], self._steps, self._seed)
        return self._clone


Maker = Callable[[PoolPolicy, str], ClosedLoopAct]
