"""Rollouts that follow the policies, composed: the world model imagines, the gate weighs, the replay shards keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.policy import AugmentationConfig, PolicyConfig
from phaseb.dynamics.custom import load_world_model
from phaseb.dynamics.gp.model import TransitionModel
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import LearnerContext
from phaseb.policy.actor import Actor
from phaseb.policy.augmentation import BranchedRollouts
from phaseb.policy.batches import RunSpec
from phaseb.policy.skill import SKILL_TOLERANCE, Forecasts, Imagine, followed_steps
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.runtime.checkpoint import checkpoint_digest
from phaseb.runtime.storage import Store
from phaseb.trust.model import TrustBundle

FOLLOWING_ARM = "trust_weighted"


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
    policy: PolicyConfig, store: Store, replay: LocalReplay | ReplayClient, specs: tuple[RunSpec, ...],
    real: Trajectories, held_out: Trajectories, uncertainty_reference: float | None, source: Any,
    context: LearnerContext, transitions: TransitionModel | None = None,
) -> FollowingRollouts:  # fmt: skip
    """The hook for the runs of `trust_weighted`.

    Args:
        policy: says which model is followed, and how.
        store: of the run directory, with the world model and the gate.
        real: training episodes, whose states are branched from.
        held_out: dev episodes, on which the model's skill is measured.
        uncertainty_reference: see `TrustBundle.score`.
        source: of this worker's batches.
        transitions: the short-range model, where it is fitted already.
    """
    config, gate = policy.augmentation, TrustBundle.load(store.folder("trust"))
    imagine: Imagine
    if config.model == "transitions":
        # The same on every worker: fitted to the same episodes with the same seed.
        imagine = (transitions or TransitionModel(policy.transitions, real, context.seed)).rollout
        digest = f"transitions of {len(real)} episodes, seed {context.seed}"
    else:
        imagine = load_world_model(store.folder("world_model")).rollout
        digest = checkpoint_digest(store.folder("world_model"))

    def weigh(rollouts: Trajectories) -> NDArray[np.floating]:
        weights = gate.score(rollouts, uncertainty_reference).weights
        assert weights is not None
        return weights

    inner = BranchedRollouts(
        config, imagine, real, specs, (FOLLOWING_ARM,), weigh, ReplaySink(replay, specs), context.seed, digest,
        held_out,
    )  # fmt: skip
    return FollowingRollouts(inner, source, context)


def foreseen(config: AugmentationConfig, imagine: Imagine, held_out: Trajectories, stored: Trajectories,
             seed: int) -> NDArray[np.bool_]:  # fmt: skip
    """(N, T) which steps of stored rollouts their model foretells well enough to be used: up to the step at which its
    skill on held-out episodes is too low, as for rollouts that follow a policy; none of a model without skill."""
    steps = stored.rewards.shape[1]
    forecasts = Forecasts(imagine, held_out, steps, seed)
    limits = forecasts.disagreement_limits(config.cut_quantile)
    most = followed_steps(config, forecasts.skills(SKILL_TOLERANCE, limits))
    return np.broadcast_to(np.arange(steps) < most, stored.rewards.shape)
