"""What one process trains of a learner's runs: groups of networks, with their batches and their noise.

A learner has one share where all runs train in its own process, or several, of which others are trained elsewhere.
Groups never exchange a number, so that they end in the same policies to the bit wherever they train.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.policy import PolicyConfig
from phaseb.nn.data_parallel import LearnerContext
from phaseb.policy.actor import Actor
from phaseb.policy.batches import Batch, NoiseStream, RunSpec
from phaseb.policy.iql import ImplicitQ
from phaseb.policy.sac import Metrics, SoftActorCritic

Levels = NDArray[np.floating]
SAC_COST = 1.8
"""Time of an update of soft actor-critic over choices / of implicit Q-learning."""


class Trained(Protocol):
    """A share, in this process or elsewhere. Lists are by group, in the order that it was made with."""

    def feed(self, step: int, batches: Sequence[Sequence[Batch]]) -> None:
        """The batches of steps from `step` on, of each group."""

    def step(self, step: int) -> None:
        """One optimiser step of every run; elsewhere it is begun, and not waited for."""

    def metrics(self) -> list[Metrics]:
        """Of the last step."""

    def actors(self) -> list[list[Actor]]:
        """A copy of every run's policy, averaged over its last steps."""

    def state_dicts(self) -> list[dict[str, Any]]: ...

    def load_state_dicts(self, states: Sequence[Mapping[str, Any]]) -> None: ...


Start = Callable[
    [PolicyConfig, Sequence[Sequence[RunSpec]], tuple[int, int], LearnerContext, Levels | None], Trained
]
"""Makes a share: the learner's config, the runs of each group, sizes of latents and actions, context, levels."""


class Share:
    """A share in this process."""

    def __init__(
        self, config: PolicyConfig, groups: Sequence[Sequence[RunSpec]], sizes: tuple[int, int],
        context: LearnerContext, levels: Levels | None = None,
    ) -> None:  # fmt: skip
        self.context = context
        self.updates = [make_update(config, specs, sizes, context, levels) for specs in groups]
        self._noises = [_noise(update, sizes[1], context) for update in self.updates]
        self._batches: list[Sequence[Batch]] = []
        self._first = 0
        self._metrics: list[Metrics] = []

    def feed(self, step: int, batches: Sequence[Sequence[Batch]]) -> None:
        self._first, self._batches = step, list(batches)

    def step(self, step: int) -> None:
        self._metrics = [
            update.update(batches[step - self._first], noise.at(step, self.context), step)
            for update, noise, batches in zip(self.updates, self._noises, self._batches, strict=True)
        ]

    def metrics(self) -> list[Metrics]:
        return self._metrics

    def actors(self) -> list[list[Actor]]:
        return [[Actor.of_run(u.average, place) for place in range(len(u.specs))] for u in self.updates]

    def state_dicts(self) -> list[dict[str, Any]]:
        return [update.state_dict() for update in self.updates]

    def load_state_dicts(self, states: Sequence[Mapping[str, Any]]) -> None:
        for update, state in zip(self.updates, states, strict=True):
            update.load_state_dict(state)


def make_update(
    config: PolicyConfig, specs: Sequence[RunSpec], sizes: tuple[int, int], context: LearnerContext,
    levels: Levels | None,
) -> SoftActorCritic:  # fmt: skip
    """The networks of a group of runs, which all learn in the same way."""
    config = config.of_learner(specs[0].learner)
    kind = ImplicitQ if config.offline.algorithm == "iql" else SoftActorCritic
    known = levels if config.switches else None
    switches = None if known is None else torch.as_tensor(known, dtype=torch.float32)
    return kind(config, specs, *sizes, context, switches)


def _noise(update: SoftActorCritic, action_size: int, context: LearnerContext) -> NoiseStream:
    config = update.config
    weights = [spec.scalars.get("cql_weight", config.offline.cql_weight) for spec in update.specs]
    others = config.offline.cql_actions if max(weights) > 0 else 0
    seeds = [spec.drawn(context.seed) for spec in update.specs]
    return NoiseStream(seeds, config.batch_size, action_size, config.num_critics, others)


def groups_of(specs: Sequence[RunSpec], size: int) -> list[list[int]]:
    """Runs of an arm that learn in the same way, at most `size` together, in their order.

    An arm's runs never share a group with another's: what a batched product rounds hangs on a run's place in it, so
    that paired runs of two arms, fed the same batches, end in one policy only at the same place of groups alike.
    """
    groups: list[list[int]] = []
    for kind in dict.fromkeys((spec.learner, spec.arm) for spec in specs):
        alike = [run for run, spec in enumerate(specs) if (spec.learner, spec.arm) == kind]
        groups += [alike[i : i + size] for i in range(0, len(alike), size)]
    return groups


def deal(groups: Sequence[Sequence[RunSpec]], num_shares: int) -> list[list[int]]:
    """Numbers of groups by share, the costly first to whichever has least. No share is empty; the first, which its
    process feeds and rolls out beside, is the lightest."""
    cost = [sum(SAC_COST if spec.learner not in ("", "iql", "bc") else 1.0 for spec in group) for group in groups]
    shares: list[list[int]] = [[] for _ in range(min(num_shares, len(groups)))]
    for group in sorted(range(len(groups)), key=lambda g: -cost[g]):
        min(shares, key=lambda share: sum(cost[g] for g in share)).append(group)
    shares.sort(key=lambda share: sum(cost[g] for g in share))
    return [sorted(share) for share in shares]


def rows_of(group: Sequence[int]) -> slice | list[int]:
    """The group's rows of a batch: a view where they lie side by side."""
    first, last = group[0], group[-1]
    return slice(first, last + 1) if last - first + 1 == len(group) else list(group)
