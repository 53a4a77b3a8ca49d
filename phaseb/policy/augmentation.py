"""Augmentation that follows the policy: short rollouts branch from real states, are cut where the model does not know,
pay for what it half knows, and are made again as the policy improves (MBPO, Janner et al. 2019; MOPO, Yu et al. 2020).

Shapes: R runs, N rollouts, T steps, D latent dimensions, A action dimensions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.config.policy import AugmentationConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.episodes.windows import window_index
from phaseb.policy.batches import RunSpec
from phaseb.policy.trained_policy import TrainedPolicy
from phaseb.runtime.seeding import numpy_generator, torch_generator

WeightFunction = Callable[[Trajectories], NDArray[np.floating]]
Generation = dict[int, Trajectories]
"""The rollouts made at one moment, by run."""
KEEP_GENERATIONS = 6
"""Generations of rollouts that the replay holds."""


class ModelRollout(Protocol):
    """Rollouts as a generator makes them: latents (N, T+1, D), actions (N, T, A), the others (N, T)."""

    @property
    def z(self) -> Tensor: ...
    @property
    def actions(self) -> Tensor: ...
    @property
    def rewards(self) -> Tensor: ...
    @property
    def reward_std(self) -> Tensor | None: ...
    @property
    def terminals(self) -> Tensor: ...
    @property
    def uncertainty(self) -> Tensor: ...


class RolloutFn(Protocol):
    """A generator: starts (N, D), a policy called with (latents, step), steps, randomness -> rollouts."""

    def __call__(
        self, z0: Tensor, actions: Callable[[Tensor, int], Tensor], horizon: int, generator: torch.Generator, /
    ) -> ModelRollout: ...


class RolloutWriter(Protocol):
    """Where rollouts go: a replay that keeps one run's rollouts from the others."""

    def add(self, run: int, rollouts: Trajectories) -> None: ...

    def drop(self, run: int, rollouts: Trajectories) -> None:
        """They are too old: never draw them again."""
        ...


class RolloutGenerations(ABC):
    """The learner's hook: makes rows for the runs of some arms at fixed steps, and keeps the last generations in use.

    Args:
        config: how many rollouts, how long, and how many generations stay.
        real: the episodes whose states are started from.
        specs: all runs of the learner, in its order.
        arms: those of them that are served.
        sink: where the rows go.
        seed: of the starts, and of what else is drawn.
        horizon: most steps of a rollout; 0 makes none at all, None is `config.horizon`.
    """

    def __init__(
        self,
        config: AugmentationConfig,
        real: Trajectories,
        specs: Sequence[RunSpec],
        arms: Sequence[str],
        sink: RolloutWriter,
        seed: int,
        horizon: int | None = None,
    ) -> None:
        self.config, self.real, self.specs = config, real, tuple(specs)
        self.runs = [i for i, spec in enumerate(specs) if spec.arm in arms]
        self.sink, self.seed, self.horizon = sink, seed, config.horizon if horizon is None else horizon
        self._kept: list[Generation] = []

    @abstractmethod
    def branch(self, run: int, step: int, actor: TrainedPolicy) -> Trajectories:
        """The rows of one run at a step, with weights. Changes nothing here."""

    def generate(
        self, step: int, actors: Sequence[TrainedPolicy], due: Collection[int] | None = None
    ) -> dict[str, float]:
        """One generation of rollouts under the policies as they are; the oldest beyond `KEEP_GENERATIONS` go.

        Does nothing where none of its runs is due; None: they are.
        """
        if due is not None and not set(due) & set(self.runs):
            return {}
        if not self.horizon:
            return {f"horizon/{self.specs[run].name}": 0.0 for run in self.runs}
        return self._commit({run: self.branch(run, step, actors[run]) for run in self.runs})

    def _commit(self, made: Generation) -> dict[str, float]:
        """Hand a generation to the sink and take the oldest out of it. Returns metrics."""
        for run, rollouts in made.items():
            self.sink.add(run, rollouts)
        self._kept.append(made)
        while len(self._kept) > KEEP_GENERATIONS:
            for run, old in self._kept.pop(0).items():
                self.sink.drop(run, old)
        metrics = {}
        for run, rollouts in made.items():
            name = self.specs[run].name
            weights = rollouts.weights if rollouts.weights is not None else rollouts.mask
            metrics[f"horizon/{name}"] = float(self.horizon)
            metrics[f"mean_steps/{name}"] = float(rollouts.lengths.mean()) if len(rollouts) else 0.0
            metrics[f"started/{name}"] = len(rollouts) / self.config.starts
            metrics[f"mean_weight/{name}"] = float(weights[rollouts.mask].mean()) if len(rollouts) else 0.0
        return metrics

    def _starts(self, run: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Episodes and steps of the real states that a run starts from."""
        g = numpy_generator(self.specs[run].drawn(self.seed), "branch", step)
        episodes, steps = np.nonzero(self.real.mask)
        chosen = g.integers(len(episodes), size=self.config.starts)
        return episodes[chosen], steps[chosen]

    def state_dict(self) -> dict[str, Any]:
        """The rollouts that are still in use: a resumed learner reads the same batches."""
        return {
            f"generation{i}": {f"run{run}": _packed(rollouts) for run, rollouts in made.items()}
            for i, made in enumerate(self._kept)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the saved rollouts back into the sink."""
        self._kept = [
            {run: _unpacked(state[f"generation{i}"][f"run{run}"]) for run in self.runs} for i in range(len(state))
        ]
        for made in self._kept:
            for run, rollouts in made.items():
                self.sink.add(run, rollouts)


class BranchedRollouts(RolloutGenerations):
    """Short rollouts of a generator under each run's own policy, or for a clone under the actions that were recorded.

    Args:
        config: lengths, cuts, penalty.
        rollout: of the generator.
        real: the episodes whose states are branched from.
        specs: all runs of the learner, in its order.
        arms: those of them that branch in this generator.
        weigh: the gate: weights (N, T) of rollouts; ones where None.
        sink: where the rollouts go.
        seed: of the starts, the actions and the model's noise.
        model: digest for the lineage.
        horizon: steps that the generator is trusted for; 0 makes no rollouts at all.
        limits: (T,) uncertainty at which a rollout is cut; none is where None.
    """

    def __init__(
        self,
        config: AugmentationConfig,
        rollout: RolloutFn,
        real: Trajectories,
        specs: Sequence[RunSpec],
        arms: Sequence[str],
        weigh: WeightFunction | None,
        sink: RolloutWriter,
        seed: int,
        model: str,
        horizon: int,
        limits: NDArray[np.floating] | None = None,
    ) -> None:
        super().__init__(config, real, specs, arms, sink, seed, horizon)
        self.rollout, self.weigh, self.model = rollout, weigh, model
        self.limits = np.full(horizon, np.inf) if limits is None else limits
        paid = real.rewards[real.mask]
        self.reward_spread, self.least_reward = float(paid.std()), float(paid.min())

    def probe_gate(self, rolled: ModelRollout, episodes: Sequence[str], steps: NDArray[np.int64]) -> None:
        """Make no rollouts at all where the gate gives no weight to any of these: forecasts under recorded actions.

        Args:
            rolled: rollouts of the generator from recorded states.
            episodes, steps: (N,) where they start.
        """
        if self.horizon and self.weigh is not None:
            weights = self._gated(rolled, episodes, steps, "probe").weights
            self.horizon = self.horizon if weights is not None and weights.any() else 0

    def branch(self, run: int, step: int, actor: TrainedPolicy) -> Trajectories:
        own = self.specs[run].drawn(self.seed)
        episodes, steps = self._starts(run, step)
        starts = torch.from_numpy(self.real.z[episodes, steps])
        noise, clones = torch_generator(own, "branch actions", step), self.specs[run].clones
        recorded = torch.from_numpy(self.real.actions[window_index(self.real, episodes, steps, self.horizon)[1]])

        def act(z: Tensor, t: int) -> Tensor:
            return recorded[:, t].to(z) if clones else actor.sample(z, noise)

        rolled = self.rollout(starts, act, self.horizon, torch_generator(own, "branch model", step))
        names = tuple(self.real.ids[e] for e in episodes)
        left = self.real.lengths[episodes] - steps if clones else None
        return self._gated(rolled, names, steps, f"{self.specs[run].name}/{step}", left)

    def _gated(
        self,
        rolled: ModelRollout,
        starts: Sequence[str],
        steps: NDArray[np.int64],
        name: str,
        most: NDArray[np.int64] | None = None,
    ) -> Trajectories:
        """Rollouts up to where the model's disagreement passes its limit, rewards less its price, and weights.

        Args:
            most: (N,) steps that each may have, where their actions end before the horizon.
        """
        uncertainty, terminals = _array(rolled.uncertainty), _array(rolled.terminals)
        lengths = accepted_steps(uncertainty, terminals, self.limits)
        lengths = lengths if most is None else np.minimum(lengths, most)
        rewards = self._lower(rolled, uncertainty)
        kept = np.flatnonzero(lengths)
        ids = tuple(f"{name}/{i}" for i in kept)
        start = tuple(starts[int(i)] for i in kept)
        rollouts = Trajectories(
            z=_array(rolled.z)[kept],
            actions=_array(rolled.actions)[kept],
            rewards=rewards[kept].astype(np.float32),
            terminals=terminals[kept],
            lengths=lengths[kept],
            ids=ids,
            splits=("train",) * len(kept),
            lineage=_lineage(start, (self.model,) * len(kept)),
            start_step=steps[kept],
            uncertainty=uncertainty[kept],
        )
        return weighted(rollouts, self.weigh)

    def _lower(self, rolled: ModelRollout, uncertainty: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, T) rewards less the price of uncertainty and less their standard deviation where there is one: the latter
        never takes a reward below the least recorded one."""
        priced = _array(rolled.rewards)
        if rolled.reward_std is not None:
            priced = np.maximum(priced - self.config.reward_pessimism * _array(rolled.reward_std), self.least_reward)
        return priced - self.config.penalty * self.reward_spread * np.nan_to_num(uncertainty, posinf=0.0)


class RecordedSegments(RolloutGenerations):
    """The placebo: as many rows as branched rollouts would be, from the same starts, and all of them recorded.

    Segments of `config.horizon` steps, shorter at the ends of episodes, each with weight 1.
    """

    def branch(self, run: int, step: int, actor: TrainedPolicy) -> Trajectories:
        real, (episodes, steps) = self.real, self._starts(run, step)
        lengths = np.minimum(self.horizon, real.lengths[episodes] - steps)
        states, taken = window_index(real, episodes, steps, self.horizon)
        count, names = len(episodes), tuple(real.ids[e] for e in episodes)
        made = Trajectories(
            z=real.z[states],
            actions=real.actions[taken],
            rewards=real.rewards[taken],
            terminals=real.terminals[taken],
            lengths=lengths,
            ids=tuple(f"{self.specs[run].name}/{step}/{i}" for i in range(count)),
            splits=("train",) * count,
            lineage=_lineage(names, ("recorded",) * count),
            start_step=steps,
            uncertainty=np.zeros((count, self.horizon), np.float32),
        )
        return weighted(made, None)


def accepted_steps(
    uncertainty: NDArray[np.floating], terminals: NDArray[np.floating], limits: NDArray[np.floating]
) -> NDArray[np.int64]:
    """(N,) steps of each rollout before its disagreement first passes its limit, or up to its end."""
    horizon = uncertainty.shape[1]
    doubtful = uncertainty > limits[None, :horizon]
    first_doubt = np.where(doubtful.any(1), doubtful.argmax(1), horizon)
    ended = terminals > 0.5
    end = np.where(ended.any(1), ended.argmax(1) + 1, horizon)
    return np.minimum(first_doubt, end).astype(np.int64)


def weighted(rollouts: Trajectories, weigh: WeightFunction | None) -> Trajectories:
    """The rollouts with the gate's weights; ones where there is no gate."""
    if weigh is None or not len(rollouts):
        weights = rollouts.mask.astype(np.float32)
    else:
        weights = np.asarray(weigh(rollouts), np.float32) * rollouts.mask
    return replace(rollouts, weights=weights)


def _lineage(starts: tuple[str, ...], models: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {"start_episode": starts, "model": models, "action_source": ("policy",) * len(starts)}


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().cpu().numpy(), np.float32)


def _packed(rollouts: Trajectories) -> dict[str, Any]:
    assert rollouts.uncertainty is not None
    assert rollouts.weights is not None
    assert rollouts.start_step is not None
    arrays = {
        "z": rollouts.z,
        "actions": rollouts.actions,
        "rewards": rollouts.rewards,
        "terminals": rollouts.terminals,
        "lengths": rollouts.lengths,
        "start_step": rollouts.start_step,
        "uncertainty": rollouts.uncertainty,
        "weights": rollouts.weights,
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    return tensors | {
        "ids": list(rollouts.ids),
        "start": list(rollouts.lineage["start_episode"]),
        "model": list(rollouts.lineage["model"]),
    }


def _unpacked(packed: Mapping[str, Any]) -> Trajectories:
    arrays: dict[str, Any] = {name: value.numpy() for name, value in packed.items() if isinstance(value, Tensor)}
    count = len(packed["ids"])
    lineage = _lineage(tuple(packed["start"]), tuple(packed["model"]))
    return Trajectories(**arrays, ids=tuple(packed["ids"]), splits=("train",) * count, lineage=lineage)
