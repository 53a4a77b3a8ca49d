"""The learner of many policies: reads batches by step, updates every run, lets rollouts follow the policies."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.policy import PolicyConfig
from phaseb.data_parallel import LearnerContext
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import ConfigError, DivergenceError
from phaseb.policy.actor import Actor
from phaseb.policy.batches import Batch, BatchSource, NoiseStream, RunSpec, to_batches
from phaseb.policy.behaviour import action_mse
from phaseb.policy.implicit import ImplicitQ
from phaseb.policy.sac import SoftActorCritic

Levels = NDArray[np.floating]


class AugmentationHook(Protocol):
    """What the learner calls at fixed steps so that new rollouts enter the replay."""

    def generate(self, step: int, actors: Sequence[Actor]) -> Mapping[str, float]:
        """Make rollouts under the policies as they are at `step` (one actor a run, in the runs' order) and insert
        them where the batches of `step` and later come from. Returns metrics."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs so that its batches are those of an uninterrupted one."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class SACLearner:
    """Trains R runs together. Implements the learner protocol of training/."""

    def __init__(
        self, config: PolicyConfig, source: BatchSource, specs: Sequence[RunSpec], context: LearnerContext,
        hook: AugmentationHook | None = None, held_out: Trajectories | None = None, levels: Levels | None = None,
    ) -> None:  # fmt: skip
        if config.batch_size % context.world_size:
            raise ConfigError(f"policy.batch_size={config.batch_size} does not divide by {context.world_size} workers")
        self.config, self.source, self.specs, self.context = config, source, tuple(specs), context
        self.hook = hook if config.augmentation.enabled else None
        self.held_out = held_out
        self.num_steps = config.num_steps
        first = source.sample(0, 1)
        self._sizes = first["z"].shape[-1], first["action"].shape[-1]
        self.groups = groups_of(self.specs, config.runs_together)
        self.updates = [self._make(group, levels) for group in self.groups]
        self.noises = [self._noise(update) for update in self.updates]
        self._batches: list[Batch] = []
        self._first_batch = 0

    def _make(self, group: Sequence[int], levels: Levels | None) -> SoftActorCritic:
        """The networks of a group of runs, which all learn in the same way."""
        specs = [self.specs[run] for run in group]
        config = self.config.where_followed() if specs[0].follows else self.config
        kind = ImplicitQ if config.offline.algorithm == "iql" else SoftActorCritic
        known = levels if config.switches else None
        switches = None if known is None else torch.as_tensor(known, dtype=torch.float32)
        return kind(config, specs, *self._sizes, self.context, switches)

    def _noise(self, update: SoftActorCritic) -> NoiseStream:
        config = update.config
        weights = [spec.scalars.get("cql_weight", config.offline.cql_weight) for spec in update.specs]
        others = config.offline.cql_actions if max(weights) > 0 else 0
        seeds = [spec.drawn(self.context.seed) for spec in update.specs]
        return NoiseStream(seeds, config.batch_size, self._sizes[1], config.num_critics, others)

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step of every run; metrics on every `log_every`-th step, else empty."""
        metrics: dict[str, float] = {}
        if self.hook is not None and self._refreshes(step):
            self._batches = []
            metrics |= {f"policy/augmentation/{k}": v for k, v in self.hook.generate(step, self.actors()).items()}
        batch = self._batch(step)
        logs = step % self.config.log_every == 0 or step == self.num_steps - 1
        for group, update, noise in zip(self.groups, self.updates, self.noises, strict=True):
            of_group = update.update(batch.runs(rows_of(group)), noise.at(step, self.context), step)
            if logs:
                metrics |= self._log(of_group, update.specs, step)
        return metrics

    def validate(self, step: int) -> dict[str, float]:
        """Action MSE of every run on held-out episodes, where there are any."""
        if self.held_out is None:
            return {}
        pairs = zip(self.specs, self.actors(), strict=True)
        return {f"policy/action_mse/{spec.name}": action_mse(actor.act, self.held_out) for spec, actor in pairs}

    def actors(self) -> list[Actor]:
        """A copy of every run's policy, averaged over its last steps, in the order of the runs."""
        made = {
            run: Actor.of_run(update.average, place)
            for group, update in zip(self.groups, self.updates, strict=True)
            for place, run in enumerate(group)
        }
        return [made[run] for run in range(len(self.specs))]

    def hot_paths(self) -> list[tuple[Any, str]]:
        """The networks of all runs."""
        return [(network, "forward") for update in self.updates for network in update.networks()]

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed learner needs to make the same updates."""
        state: dict[str, Any] = {"groups": {f"group{i}": update.state_dict() for i, update in enumerate(self.updates)}}
        return state | ({"hook": self.hook.state_dict()} if self.hook is not None else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for i, update in enumerate(self.updates):
            update.load_state_dict(state["groups"][f"group{i}"])
        if self.hook is not None:
            self.hook.load_state_dict(state.get("hook", {}))
        self._batches = []

    def _refreshes(self, step: int) -> bool:
        plan = self.config.augmentation
        # A policy that only clones has no use for rollouts.
        served = [u for u in self.updates if u.specs[0].follows] or self.updates
        first = max(plan.first_step, served[0].clone_until)
        return step >= first and (step - first) % plan.refresh_steps == 0

    def _batch(self, step: int) -> Batch:
        """The batch of a step; several are asked for at once, but none beyond the next generation of rollouts."""
        at = step - self._first_batch
        if not 0 <= at < len(self._batches):
            count = min(self.config.prefetch, max(1, self.num_steps - step))
            if self.hook is not None:
                ahead = (i for i in range(1, count) if self._refreshes(step + i))
                count = next(ahead, count)
            arrays = self.source.sample(step, count)
            self._batches = to_batches(arrays, self.context, self.config.normalise_weights)
            self._first_batch, at = step, 0
        return self._batches[at]

    def _log(self, metrics: Mapping[str, torch.Tensor], specs: Sequence[RunSpec], step: int) -> dict[str, float]:
        rows = {f"policy/{name}/{s.name}": float(v) for name, values in metrics.items()
                for s, v in zip(specs, values.tolist(), strict=True)}  # fmt: skip
        for name, value in rows.items():
            if "loss" in name and not abs(value) < float("inf"):
                raise DivergenceError(f"{name} is {value} at step {step}; lower policy.critic_lr or policy.actor_lr")
        return rows


def groups_of(specs: Sequence[RunSpec], size: int) -> list[list[int]]:
    """Runs of an arm that learn in the same way, at most `size` together, in their order.

    An arm's runs never share a group with another's: what a batched product rounds hangs on a run's place in it, so
    that paired runs of two arms, fed the same batches, end in one policy only at the same place of groups alike.
    """
    groups: list[list[int]] = []
    kinds = {(spec.follows, spec.arm): None for spec in sorted(specs, key=lambda spec: spec.follows)}
    for kind in kinds:
        alike = [run for run, spec in enumerate(specs) if (spec.follows, spec.arm) == kind]
        groups += [alike[i : i + size] for i in range(0, len(alike), size)]
    return groups


def rows_of(group: Sequence[int]) -> slice | list[int]:
    """The group's rows of a batch: a view where they lie side by side."""
    first, last = group[0], group[-1]
    return slice(first, last + 1) if last - first + 1 == len(group) else list(group)


def make_learner(
    config: PolicyConfig, source: BatchSource, specs: Sequence[RunSpec], context: LearnerContext,
    hook: AugmentationHook | None = None, held_out: Trajectories | None = None, levels: Levels | None = None,
) -> SACLearner:  # fmt: skip
    """The learner of `specs`, fed by `source`; `hook` lets rollouts follow them; `held_out` is for validation; `levels`
    are those of the actions (see `action_levels`), read where `policy.switches` is set."""
    return SACLearner(config, source, specs, context, hook, held_out, levels)
