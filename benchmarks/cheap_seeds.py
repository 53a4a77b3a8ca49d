"""Many small seeds of the built-in cell: states for latents, small networks, arms and seeds trained together.

What a benchmark of "do no harm" needs many of. Every seed redraws episodes and policies; arms of a seed share real
rows, weights and noise, as in a run.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from broken_models import Standard, perturbed
from numpy.typing import NDArray

from phaseb.config.data import EnvironmentConfig
from phaseb.config.policy import PolicyConfig, ReplayConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.actor import Actor
from phaseb.policy.augmentation import BranchedRollouts, RolloutFn, RolloutGenerations, WeightFunction
from phaseb.policy.batches import RunSpec
from phaseb.policy.behavior_metrics import action_levels
from phaseb.policy.evaluation import Row, evaluate
from phaseb.policy.learner import SACLearner
from phaseb.policy.rewards import RewardNormalizer
from phaseb.promotion.paired import ECONOMICS
from phaseb.replay.local import LocalReplay, LocalSource
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.seeding import derive_seed, numpy_generator, torch_generator
from phaseb.stages.augmentation import validated_rollouts
from phaseb.workcell import make
from phaseb.workcell.collect import collect_episodes

CELL = EnvironmentConfig(observation="state")
HELD_OUT_FIRST = 10_000


@dataclass(frozen=True)
class Way:
    """How an arm comes by synthetic data: none; `stored` episodes, ungated; or rollouts that `follow` the policy.

    `learner` is a name under policy.learners, as of a run's arm; empty: as `policy` stands.
    """

    share: float = 0.0
    stored: Trajectories | None = None
    follow: RolloutFn | None = None
    weigh: WeightFunction | None = None
    learner: str = ""


def recorded(
    seed: int, count: int, first: int = 0, standard: Standard | None = None, cell: EnvironmentConfig = CELL
) -> tuple[Trajectories, Standard]:
    """Episodes number first .. first + count - 1 of the data set `seed`, by mixed operators."""
    episodes = collect_episodes(cell, seed, range(first, first + count))
    states = np.stack([e.state for e in episodes if e.state is not None])
    standard = standard or Standard(states)
    rewards = np.stack([e.rewards for e in episodes])
    return Trajectories(
        z=standard(states),
        actions=np.stack([e.actions for e in episodes if e.actions is not None]),
        rewards=rewards,
        terminals=np.zeros_like(rewards),
        lengths=np.full(count, rewards.shape[1]),
        ids=tuple(e.id for e in episodes),
        splits=("train",) * count,
        metrics={name: np.array([e.metrics[name] for e in episodes], float) for name in ECONOMICS},
    ), standard


def imagined(imagine: RolloutFn, real: Trajectories, count: int, noise: float, seed: int, name: str) -> Trajectories:
    """Whole rollouts from real starts under recorded actions, every second one's perturbed: what a run stores."""
    g = numpy_generator(seed, "stored", name)
    chosen = g.integers(len(real), size=count)
    actions = real.actions[chosen].copy()
    actions[1::2] = perturbed(actions[1::2], noise, g)
    driven, steps = torch.from_numpy(actions), actions.shape[1]
    rolled = imagine(torch.from_numpy(real.z[chosen, 0]), lambda z, t: driven[:, t], steps, torch_generator(seed, name))
    return Trajectories(
        z=_array(rolled.z),
        actions=actions,
        rewards=_array(rolled.rewards),
        terminals=np.zeros((count, steps), "f"),
        lengths=np.full(count, steps),
        ids=tuple(f"{name}-{i}" for i in range(count)),
        splits=("train",) * count,
        lineage={"start_episode": tuple(real.ids[i] for i in chosen)},
    )


class OwnRollouts:
    """Keeps each arm's rollouts in the seed's replay under a weight column of its own."""

    replay: LocalReplay
    specs: Sequence[RunSpec]

    def add(self, run: int, rollouts: Trajectories) -> None:
        if len(rollouts):
            self.replay.insert(rollouts, "synthetic", {self.specs[run].arm: rollouts.weights})

    def drop(self, run: int, rollouts: Trajectories) -> None:
        if len(rollouts):
            self.replay.set_weights(self.specs[run].arm, rollouts, "synthetic", np.zeros_like(rollouts.rewards))


class CheapSeed(OwnRollouts):
    """One seed: its episodes, its replay, and the streams and hooks of its arms."""

    def __init__(self, seed: int, num_episodes: int, num_held_out: int = 10) -> None:
        self.seed = seed
        self.real, self.standard = recorded(seed, num_episodes)
        self.held_out, _ = recorded(seed, num_held_out, HELD_OUT_FIRST, self.standard)
        self.ways: dict[str, Way] = {}
        self.hooks: dict[str, BranchedRollouts] = {}

    def prepare(self, ways: Mapping[str, Way], config: PolicyConfig) -> None:
        """Fill the replay for these arms."""
        self.ways = dict(ways)
        self.specs = [RunSpec(arm, self.seed, learner=way.learner) for arm, way in ways.items()]
        schema = TransitionSchema(self.real.z.shape[-1], self.real.actions.shape[-1], tuple(ways))
        self.replay = LocalReplay(schema, ReplayConfig())
        self.replay.insert(self.real, "real")
        for arm, way in ways.items():
            if way.stored is not None:
                self.replay.insert(way.stored, "synthetic", {arm: way.stored.mask})
            if way.follow is not None:
                self.hooks[arm] = validated_rollouts(
                    config.augmentation,
                    way.follow,
                    self.real,
                    self.specs,
                    (arm,),
                    way.weigh,
                    self,
                    self.seed,
                    held_out=self.held_out,
                )

    def source(self, config: PolicyConfig) -> LocalSource:
        own = derive_seed(self.seed, "rows") % 2**31
        streams = [
            SampleSpec(s.name, own, share, s.arm, "sampling", when_short="real")
            if (share := self.ways[s.arm].share)
            else SampleSpec(s.name, own)
            for s in self.specs
        ]
        return self.replay.source(streams, config.batch_size, config.discount)


class Seed(Protocol):
    """What trains together: runs, and the hooks of those that have rollouts, by arm."""

    real: Trajectories
    specs: Sequence[RunSpec]
    hooks: Mapping[str, RolloutGenerations]


class Together:
    """The batches and the rollouts of all arms of several seeds: a learner's source and its hook."""

    def __init__(self, seeds: Sequence[Seed], sources: Sequence[LocalSource]) -> None:
        self.seeds, self.sources = seeds, sources

    def sample(self, step: int, num_batches: int) -> dict[str, NDArray[Any]]:
        parts = [source.sample(step, num_batches) for source in self.sources]
        return {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}

    @property
    def runs(self) -> list[int]:
        """Those that branch, by their place among the runs of all seeds."""
        firsts = itertools.accumulate((len(seed.specs) for seed in self.seeds), initial=0)
        return [
            first + run
            for first, seed in zip(firsts, self.seeds, strict=False)
            for hook in seed.hooks.values()
            for run in hook.runs
        ]

    def generate(self, step: int, actors: Sequence[Actor], due: Collection[int]) -> dict[str, float]:
        rest, metrics, first = iter(actors), dict[str, float](), 0
        for seed in self.seeds:
            own = [next(rest) for _ in seed.specs]
            here = {run - first for run in due}
            for hook in seed.hooks.values():
                metrics |= hook.generate(step, own, here)
            first += len(seed.specs)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {str(i): {arm: h.state_dict() for arm, h in seed.hooks.items()} for i, seed in enumerate(self.seeds)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for i, seed in enumerate(self.seeds):
            for arm, hook in seed.hooks.items():
                hook.load_state_dict(state[str(i)][arm])

    def learner(self, config: PolicyConfig, levels: NDArray[np.floating]) -> SACLearner:
        specs = [spec for seed in self.seeds for spec in seed.specs]
        rewards = RewardNormalizer.fit(self.seeds[0].real, config.discount)
        return SACLearner(config, self, specs, WorkerContext(0), self, levels=levels, rewards=rewards)


Look = Callable[[int, dict[int, dict[str, Actor]]], None]


def train(
    seeds: Sequence[CheapSeed], config: PolicyConfig, look_at: Sequence[int] = (), look: Look | None = None
) -> dict[int, dict[str, Actor]]:
    """{seed: {arm: policy}} of prepared seeds; `look` sees the policies after the steps `look_at` too."""
    together = Together(seeds, [seed.source(config) for seed in seeds])
    learner = together.learner(config, action_levels(seeds[0].real))

    def actors() -> dict[int, dict[str, Actor]]:
        rest = iter(learner.actors())
        return {seed.seed: {spec.arm: next(rest) for spec in seed.specs} for seed in seeds}

    for step in range(learner.num_steps):
        learner.step(step)
        if look is not None and step + 1 in look_at:
            look(step + 1, actors())
    return actors()


def play(actor: Actor, standard: Standard, episodes: Sequence[int], cell: EnvironmentConfig = CELL) -> list[Row]:
    """What a policy earns in physics, one row an episode."""
    return evaluate(actor.closed_loop(), standard, make(cell, min(len(episodes), 100)), episodes)


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().cpu().numpy(), np.float32)
