"""The learner of many policies: reads batches by step, updates every run, lets rollouts follow the policies."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import torch

from phaseb.config.policy import PolicyConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import ConfigError, DivergenceError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import Batch, BatchSource, RunSpec, jitter, to_batches
from phaseb.policy.behavior_metrics import action_mse
from phaseb.policy.learner_group import Levels, group_rows, group_runs, make_update
from phaseb.policy.rewards import RewardNormalizer
from phaseb.policy.trained_policy import TrainedPolicy

PREFETCH = 20
"""Batches in one request to the replay."""
LOG_EVERY = 50
"""Steps between two rows of metrics."""


class AugmentationHook(Protocol):
    """What the learner calls at fixed steps so that new rollouts enter the replay.

    Attributes:
        runs: the runs that draw rollouts, by their place among the learner's.
    """

    @property
    def runs(self) -> Sequence[int]: ...

    def generate(self, step: int, actors: Sequence[TrainedPolicy], due: Collection[int]) -> Mapping[str, float]:
        """Make rollouts of the runs that are due, and insert them where the batches of `step` and later come from.

        Args:
            step: of the learner.
            actors: the policies as they are, one a run, in the runs' order.
            due: runs whose rollouts are to be made again at this step.

        Returns:
            metrics.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs so that its batches are those of an uninterrupted one."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class SACLearner:
    """Trains R runs together. Implements the learner protocol of training/.

    Args:
        config: of the policy.
        source: of the batches.
        specs: the runs.
        context: seed and place among workers.
        hook: lets rollouts follow the policies.
        held_out: episodes to look at now and then.
        levels: those of the actions (see `action_levels`), read where `policy.binary_actions` is set and by
            learners of chunks.
        rewards: normalises those of the batches; None leaves them as they are.
    """

    def __init__(
        self,
        config: PolicyConfig,
        source: BatchSource,
        specs: Sequence[RunSpec],
        context: WorkerContext,
        hook: AugmentationHook | None = None,
        held_out: Trajectories | None = None,
        levels: Levels | None = None,
        rewards: RewardNormalizer | None = None,
    ) -> None:
        if config.batch_size % context.world_size:
            raise ConfigError(f"policy.batch_size={config.batch_size} does not divide by {context.world_size} workers")
        self.config, self.source, self.specs, self.context = config, source, tuple(specs), context
        self.hook = hook
        self.held_out, self.rewards = held_out, rewards
        self.num_steps = config.num_steps
        first = source.sample(0, 1)
        sizes = first["z"].shape[-1], first["action"].shape[-1]
        self.groups = group_runs(self.specs, config.runs_per_batch)
        self.updates = [
            make_update(config, [self.specs[run] for run in group], sizes, context, levels) for group in self.groups
        ]
        self._noises = [update.noise_stream() for update in self.updates]
        self._batches: list[list[Batch]] = []
        self._fed = range(0)

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step of every run; metrics on every `log_every`-th step, else empty."""
        metrics: dict[str, float] = {}
        if self.hook is not None and (due := self._due(step)):
            self._fed = range(0)
            made = self.hook.generate(step, self.actors(), due)
            metrics |= {f"policy/augmentation/{name}": value for name, value in made.items()}
        if step not in self._fed:
            self._feed(step)
        logs = step % LOG_EVERY == 0 or step == self.num_steps - 1
        for update, noise, batches in zip(self.updates, self._noises, self._batches, strict=True):
            found = update.update(batches[step - self._fed.start], noise.at(step, self.context), step)
            if logs:
                metrics |= self._log(found, update.specs, step)
        return metrics

    def validate(self, step: int) -> dict[str, float]:
        """Action MSE of every run on held-out episodes, where there are any."""
        if self.held_out is None:
            return {}
        pairs = zip(self.specs, self.actors(), strict=True)
        return {f"policy/action_mse/{spec.name}": action_mse(actor.act, self.held_out) for spec, actor in pairs}

    def actors(self) -> list[TrainedPolicy]:
        """A copy of every run's policy, averaged over its last steps, in the order of the runs."""
        made = {
            run: update.policy(place)
            for group, update in zip(self.groups, self.updates, strict=True)
            for place, run in enumerate(group)
        }
        return [made[run] for run in range(len(self.specs))]

    def compile_targets(self) -> list[tuple[Any, str]]:
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
        self._fed = range(0)

    def _due(self, step: int) -> tuple[int, ...]:
        """Runs whose rollouts are made again at this step: at none while they clone and will then learn values."""
        refresh_steps = self.config.augmentation.refresh_steps

        def refreshes(run: int) -> bool:
            own = self.config.of_learner(self.specs[run].learner)
            first = own.bc_steps if own.learns_values else 0
            return step >= first and (step - first) % refresh_steps == 0

        return tuple(run for run in (self.hook.runs if self.hook is not None else ()) if refreshes(run))

    def _feed(self, step: int) -> None:
        """Batches from a step on; several are asked for at once, but none beyond the next generation of rollouts."""
        count = min(PREFETCH, max(1, self.num_steps - step))
        if self.hook is not None:
            count = next((i for i in range(1, count) if self._due(step + i)), count)
        batches = to_batches(self.source.sample(step, count), self.context, self.rewards)
        batches = [jitter(batch, self.specs, step + i, self.config, self.context) for i, batch in enumerate(batches)]
        self._batches = [[batch.runs(group_rows(group)) for batch in batches] for group in self.groups]
        self._fed = range(step, step + count)

    def _log(self, metrics: Mapping[str, torch.Tensor], specs: Sequence[RunSpec], step: int) -> dict[str, float]:
        rows = {
            f"policy/{name}/{s.name}": float(v)
            for name, values in metrics.items()
            for s, v in zip(specs, values.tolist(), strict=True)
        }
        for name, value in rows.items():
            if "loss" in name and not abs(value) < float("inf"):
                raise DivergenceError(f"{name} is {value} at step {step}; lower policy.critic_lr or policy.actor_lr")
        return rows


def trained_actors(
    config: PolicyConfig,
    specs: Sequence[RunSpec],
    sizes: tuple[int, int],
    state: Mapping[str, Any],
    seed: int,
    levels: Levels | None = None,
) -> list[TrainedPolicy]:
    """The policies in a learner's state, in the order of the runs.

    Args:
        sizes: of latents and actions.
        seed: that the learner was made with.
        levels: as `SACLearner` was given them.
    """
    found: dict[int, TrainedPolicy] = {}
    for i, group in enumerate(group_runs(specs, config.runs_per_batch)):
        update = make_update(config, [specs[run] for run in group], sizes, WorkerContext(seed), levels)
        update.load_state_dict(state["groups"][f"group{i}"])
        found |= {run: update.policy(place) for place, run in enumerate(group)}
    return [found[run] for run in range(len(specs))]
