"""Rollouts that follow the policies, composed: the world model imagines, the gate weighs, the replay shards keep."""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.arms import CHOSEN, Arm
from phaseb.config.policy import AugmentationConfig
from phaseb.dynamics.protocol import load_generator
from phaseb.dynamics.rollout import Rollout, RolloutFn
from phaseb.dynamics.validation import ForecastSkill, validate
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.augmentation import (
    BranchedRollouts,
    RecordedSegments,
    RolloutGenerations,
    RolloutWriter,
    WeightFunction,
)
from phaseb.policy.batches import RunSpec
from phaseb.policy.trained_policy import TrainedPolicy
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.runtime.checkpoint import checkpoint_digest
from phaseb.runtime.storage import Store
from phaseb.stages.arm_generator import choice_of, generator_of
from phaseb.trust.model import TrustModel

RECORDED = "recorded"
"""Names the source of placebo rows, in columns and in the lineage."""
NUM_GATE_PROBES = 500  # forecasts that the gate is shown before policies branch


def weight_column(arm: Arm, run: str) -> str | None:
    """The weight column of the replay by which a run of an arm draws synthetic rows; None where it draws none.

    Branched rows have a column for each run: no other run ever draws them.
    """
    if arm.config.rollouts == "branched":
        return f"rollouts:{run}"
    if arm.config.rollouts == "stored":
        return f"stored:{RECORDED}" if arm.placebo_of else f"stored:{arm.config.generator}:{arm.config.weight}"
    return None


@dataclass(frozen=True)
class ReplayWriter:
    """Keeps each run's rollouts in the replay under a weight column of its own."""

    replay: LocalReplay | ReplayClient
    specs: tuple[RunSpec, ...]

    def add(self, run: int, rollouts: Trajectories) -> None:
        if len(rollouts) == 0:
            return
        assert rollouts.weights is not None
        column = f"rollouts:{self.specs[run].name}"
        self.replay.insert(rollouts, "synthetic", {column: rollouts.weights})
        # Rows that a resumed run puts back may be held already, dropped: their weight counts anew.
        self.replay.set_weights(column, rollouts, "synthetic", rollouts.weights)

    def drop(self, run: int, rollouts: Trajectories) -> None:
        if len(rollouts):
            column = f"rollouts:{self.specs[run].name}"
            self.replay.set_weights(column, rollouts, "synthetic", np.zeros_like(rollouts.rewards))


class Augmenter:
    """The learner's hook on any number of workers: the first makes the rollouts of all arms, all wait for them."""

    def __init__(self, parts: Mapping[str, RolloutGenerations], source: Any, context: WorkerContext) -> None:
        self.parts, self._source, self._context = dict(parts), source, context
        self.runs = sorted(run for part in parts.values() for run in part.runs)

    def generate(self, step: int, actors: Sequence[TrainedPolicy], due: Collection[int]) -> Mapping[str, float]:
        metrics: dict[str, float] = {}
        if self._context.rank == 0:
            for part in self.parts.values():
                metrics |= part.generate(step, actors, due)
        self._context.all_reduce_mean(torch.zeros((), device=self._context.device))  # a barrier
        if hasattr(self._source, "refresh"):
            self._source.refresh()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {arm: part.state_dict() for arm, part in self.parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._context.rank == 0:
            for arm, part in self.parts.items():
                part.load_state_dict(state.get(arm, {}))
        self._context.all_reduce_mean(torch.zeros((), device=self._context.device))


def make_augmenter(
    config: AugmentationConfig,
    arms: Sequence[Arm],
    generators: Store,
    store: Store,
    replay: LocalReplay | ReplayClient,
    specs: tuple[RunSpec, ...],
    real: Trajectories,
    held_out: Trajectories,
    source: Any,
    context: WorkerContext,
) -> Augmenter | None:
    """The hook of the arms that branch; None where none does.

    Args:
        config: how policies branch.
        arms: of the run, any.
        generators: folder of the generators.
        store: of the run directory, with the gate.
        real: training episodes, whose states are branched from.
        held_out: dev episodes, on which the generators are validated.
        source: of this worker's batches.
    """
    sink, gate = ReplayWriter(replay, specs), None
    parts: dict[str, RolloutGenerations] = {}
    for arm in (arm for arm in arms if arm.config.rollouts == "branched"):
        if arm.placebo_of:
            parts[arm.name] = RecordedSegments(config, real, specs, (arm.name,), sink, context.seed)
            continue
        name = generator_of(arm, store)
        if name is None:  # no generator serves: the arm learns from recorded data alone
            continue
        home = generators.folder(name)
        generator, weigh = load_generator(home), None
        if arm.config.weight == "trust":
            gate = gate or TrustModel.load(store.folder("trust"))
            scale = choice_of(store)["uncertainty_scale"] if arm.config.generator == CHOSEN else None
            weigh = functools.partial(gate_weights, gate, generator.uncertainty_scale if scale is None else scale)
        parts[arm.name] = validated_rollouts(
            config,
            generator.rollout,
            real,
            specs,
            (arm.name,),
            weigh,
            sink,
            context.seed,
            checkpoint_digest(home),
            held_out,
        )
    return Augmenter(parts, source, context) if parts else None


def gate_weights(gate: TrustModel, uncertainty_scale: float, rollouts: Trajectories) -> NDArray[np.floating]:
    """(N, T) the gate's weights of rollouts."""
    weights = gate.score(rollouts, uncertainty_scale).weights
    assert weights is not None
    return weights


def validated_rollouts(
    config: AugmentationConfig,
    rollout: RolloutFn,
    real: Trajectories,
    specs: Sequence[RunSpec],
    arms: Sequence[str],
    weigh: WeightFunction | None,
    sink: RolloutWriter,
    seed: int,
    model: str = "",
    held_out: Trajectories | None = None,
) -> BranchedRollouts:
    """Branched rollouts as far as the generator is trusted on episodes that it was not fitted to.

    Args:
        held_out: those episodes; `real` where there are none.
    """
    measured_on = real if held_out is None or not len(held_out) else held_out
    found = validate(rollout, measured_on, config, config.horizon, seed)
    inner = BranchedRollouts(config, rollout, real, specs, arms, weigh, sink, seed, model, found.horizon, found.limits)
    inner.probe_gate(*_first(found.forecasts, NUM_GATE_PROBES))
    return inner


def _first(forecasts: ForecastSkill, count: int) -> tuple[Rollout, tuple[str, ...], NDArray[np.int64]]:
    """The first forecasts, and the episodes and steps that they start from."""
    few, rolled = min(count, len(forecasts.starts)), forecasts.rolled
    episodes, steps = zip(*forecasts.starts[:few], strict=True)
    std = rolled.reward_std
    part = Rollout(
        rolled.z[:few],
        rolled.actions[:few],
        rolled.rewards[:few],
        rolled.terminals[:few],
        rolled.uncertainty[:few],
        None if std is None else std[:few],
    )
    return part, episodes, np.array(steps)


def trusted_steps(config: AugmentationConfig, rollout: RolloutFn, held_out: Trajectories, steps: int, seed: int) -> int:
    """Steps that stored rollouts of a generator are trusted for, as branched ones are; 0 of one without skill."""
    return validate(rollout, held_out, config, steps, seed).horizon
