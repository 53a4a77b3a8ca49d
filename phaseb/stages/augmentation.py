"""Rollouts that follow the policies, composed: the world model imagines, the gate weighs, the replay shards keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.policy import AugmentationConfig
from phaseb.dynamics.protocol import load_generator
from phaseb.dynamics.rollout import Rollout, RolloutFn
from phaseb.dynamics.validation import ForecastSkill, validate
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import LearnerContext
from phaseb.policy.actor import Actor
from phaseb.policy.augmentation import BranchedRollouts, RolloutSink, Weigh
from phaseb.policy.batches import RunSpec
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.runtime.checkpoint import checkpoint_digest
from phaseb.runtime.storage import Store
from phaseb.trust.model import TrustBundle

FOLLOWING_ARM = "trust_weighted"
NUM_GATE_PROBES = 500  # forecasts that the gate is shown before policies branch


def own_column(run: str) -> str:
    """The weight column of a run's own rollouts: no other run ever draws them."""
    return f"rollouts:{run}"


@dataclass(frozen=True)
class ReplaySink:
    """Keeps each run's rollouts in the replay under a weight column of its own."""

    replay: LocalReplay | ReplayClient
    specs: tuple[RunSpec, ...]

    def add(self, run: int, rollouts: Trajectories) -> None:
        if len(rollouts) == 0:
            return
        assert rollouts.weights is not None
        column = own_column(self.specs[run].name)
        hidden = np.zeros_like(rollouts.weights)  # from the arms that draw what is stored
        self.replay.insert(rollouts, "synthetic", {column: rollouts.weights, "weight": hidden})
        # Rows that a resumed run puts back may be held already, dropped: their weight counts anew.
        self.replay.set_weights(column, rollouts, "synthetic", rollouts.weights)

    def drop(self, run: int, rollouts: Trajectories) -> None:
        if len(rollouts):
            column = own_column(self.specs[run].name)
            self.replay.set_weights(column, rollouts, "synthetic", np.zeros_like(rollouts.rewards))


class FollowingRollouts:
    """The learner's hook on any number of workers: the first makes the rollouts, all wait until they are there."""

    def __init__(self, inner: BranchedRollouts, source: Any, context: LearnerContext) -> None:
        self._inner, self._source, self._context = inner, source, context
        self.followed = inner.followed

    def generate(self, step: int, actors: Sequence[Actor]) -> Mapping[str, float]:
        metrics = self._inner.generate(step, actors) if self._context.rank == 0 else {}
        self._context.average(torch.zeros((), device=self._context.device))  # a barrier
        if hasattr(self._source, "refresh"):
            self._source.refresh()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return self._inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._context.rank == 0:
            self._inner.load_state_dict(state)
        self._context.average(torch.zeros((), device=self._context.device))


def following(
    config: AugmentationConfig, generators: Store, store: Store, replay: LocalReplay | ReplayClient,
    specs: tuple[RunSpec, ...], real: Trajectories, held_out: Trajectories, source: Any, context: LearnerContext,
) -> FollowingRollouts:  # fmt: skip
    """The hook for the runs of `trust_weighted`.

    Args:
        config: which generator policies branch in, and how.
        generators: folder of the generators.
        store: of the run directory, with the gate.
        real: training episodes, whose states are branched from.
        held_out: dev episodes, on which the generator is validated.
        source: of this worker's batches.
    """
    home = generators.folder(config.generator)
    generator, gate = load_generator(home), TrustBundle.load(store.folder("trust"))

    def weigh(rollouts: Trajectories) -> NDArray[np.floating]:
        weights = gate.score(rollouts, generator.uncertainty_scale).weights
        assert weights is not None
        return weights

    inner = validated_rollouts(
        config, generator.rollout, real, specs, (FOLLOWING_ARM,), weigh, ReplaySink(replay, specs), context.seed,
        checkpoint_digest(home), held_out,
    )  # fmt: skip
    return FollowingRollouts(inner, source, context)


def validated_rollouts(
    config: AugmentationConfig, rollout: RolloutFn, real: Trajectories, specs: Sequence[RunSpec], arms: Sequence[str],
    weigh: Weigh | None, sink: RolloutSink, seed: int, model: str = "", held_out: Trajectories | None = None,
) -> BranchedRollouts:  # fmt: skip
    """Branched rollouts as far as the generator is trusted on episodes that it was not fitted to.

    Args:
        held_out: those episodes; `real` where there are none.
    """
    measured_on = real if held_out is None or not len(held_out) else held_out
    found = validate(rollout, measured_on, config, config.horizon, seed)
    inner = BranchedRollouts(
        config, rollout, real, specs, arms, weigh, sink, seed, model, found.horizon, found.limits
    )
    inner.probe_gate(*_first(found.forecasts, NUM_GATE_PROBES))
    return inner


def _first(forecasts: ForecastSkill, count: int) -> tuple[Rollout, tuple[str, ...], NDArray[np.int64]]:
    """The first forecasts, and the episodes and steps that they start from."""
    few, rolled = min(count, len(forecasts.starts)), forecasts.rolled
    episodes, steps = zip(*forecasts.starts[:few], strict=True)
    std = rolled.reward_std
    part = Rollout(
        rolled.z[:few], rolled.actions[:few], rolled.rewards[:few], rolled.terminals[:few], rolled.uncertainty[:few],
        None if std is None else std[:few],
    )  # fmt: skip
    return part, episodes, np.array(steps)


def foreseen(config: AugmentationConfig, rollout: RolloutFn, held_out: Trajectories, stored: Trajectories,
             seed: int) -> NDArray[np.bool_]:  # fmt: skip
    """(N, T) which steps of stored rollouts their generator is trusted for, as for branched rollouts; none of a
    generator without skill."""
    steps = stored.rewards.shape[1]
    trusted = validate(rollout, held_out, config, steps, seed).horizon
    return np.broadcast_to(np.arange(steps) < trusted, stored.rewards.shape)
