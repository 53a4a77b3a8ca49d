"""What the policy benchmarks share: episodes of the cell as standardised states, arms, and one seed of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from cheap_seeds import CELL, OwnRollouts, Together, recorded

from phaseb.config.data import ValuationConfig
from phaseb.config.dynamics import GPConfig
from phaseb.config.policy import AugmentationConfig, PolicyConfig, ReplayConfig
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.episodes.trajectories import Trajectories
from phaseb.policy.actor import Actor
from phaseb.policy.augmentation import BranchedRollouts
from phaseb.policy.batches import RunSpec
from phaseb.policy.behavior_metrics import action_levels, action_mse
from phaseb.policy.evaluation import aggregate, evaluate
from phaseb.replay.local import LocalReplay, LocalSource
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.seeding import derive_seed, numpy_generator
from phaseb.stages.augmentation import validated_rollouts
from phaseb.workcell import make
from phaseb.workcell.oracle import Oracle

Scores = dict[str, float]
SEALED = range(1_000_000, 1_000_200)  # evaluation episodes of what is reported
DEVELOPMENT = range(2_000_000, 2_000_100)  # and of what is chosen


@dataclass(frozen=True)
class Arm:
    """One way to train the policy.

    Attributes:
        kind: "real", "noise" (noise on real transitions), "mix" (two real transitions mixed) or "rollouts".
        share: of synthetic rows in a batch.
        noise: of the kind "noise", in standard deviations.
        plan: settings of `policy.augmentation` in which its rollouts differ.
        gated: whether rollouts are cut where the model does not know and pay for what it doubts.
        scalars: settings of `policy.offline` in which it differs.
        learner: further settings of `policy` in which it differs, so that it trains by itself.
    """

    kind: str
    share: float = 0.5
    noise: float = 0.03
    plan: Mapping[str, Any] = field(default_factory=dict)
    gated: bool = True
    scalars: Mapping[str, float] = field(default_factory=dict)
    learner: Mapping[str, Any] = field(default_factory=dict)

    def policy(self, config: PolicyConfig) -> PolicyConfig:
        """The settings of `policy` with this arm's own laid over them."""
        offline = config.offline.model_dump() | self.learner.get("offline", {})
        return PolicyConfig.model_validate(config.model_dump() | {**self.learner, "offline": offline})


class Bench(OwnRollouts):
    """One seed: its data, its short-range model, its replay, and the streams of its runs."""

    def __init__(self, seed: int, episodes: int, arms: Mapping[str, Arm], policy: PolicyConfig) -> None:
        self.seed, self.arms, self.policy = seed, arms, policy
        self.real, self.standard = recorded(seed, episodes)
        self.held_out, _ = recorded(seed, 20, 10_000, self.standard)
        self.specs = [RunSpec(name, seed, arm.scalars, "sac" * (arm.kind == "rollouts")) for name, arm in arms.items()]
        schema = TransitionSchema(self.real.z.shape[-1], self.real.actions.shape[-1], tuple(arms))
        self.replay = LocalReplay(schema, ReplayConfig())
        self.replay.insert(self.real, "real")
        self.hooks: dict[str, BranchedRollouts] = {}
        for name, arm in arms.items():
            if arm.kind in ("noise", "mix"):
                noise = arm.kind == "noise"
                copies = noisy(self.real, seed, arm.noise, name) if noise else mixed(self.real, seed, name)
                self.replay.insert(copies, "synthetic", {name: copies.mask})
        branching = [spec.arm for spec in self.specs if arms[spec.arm].kind == "rollouts"]
        if branching:
            model = GPDynamics.fit(GPConfig(), self.real, seed)
            self.hooks = {name: self._hook(name, model) for name in branching}

    def _hook(self, name: str, model: GPDynamics) -> BranchedRollouts:
        plan = AugmentationConfig.model_validate(self.policy.augmentation.model_dump() | dict(self.arms[name].plan))
        if not self.arms[name].gated:
            lax = {"min_skill": -np.inf, "min_reward_skill": -np.inf}
            plan = plan.model_copy(update={"cut_quantile": 1.0, "penalty": 0.0, "reward_pessimism": 0.0, **lax})
        hook = validated_rollouts(
            plan, model.rollout, self.real, self.specs, (name,), None, self, self.seed, held_out=self.held_out
        )
        if not self.arms[name].gated:
            hook.limits = np.full(plan.horizon, np.inf)
        return hook

    def source(self) -> LocalSource:
        own = derive_seed(self.seed, "rows") % 2**31
        streams = [
            SampleSpec(s.name, own)
            if self.arms[s.arm].kind == "real"
            else SampleSpec(s.name, own, self.arms[s.arm].share, s.arm, "sampling", when_short="real")
            for s in self.specs
        ]
        return self.replay.source(streams, self.policy.batch_size, self.policy.discount)

    def score(self, actor: Actor, episodes: Sequence[int]) -> Scores:
        environment = make(CELL, min(len(episodes), 100))
        rows = evaluate(actor.closed_loop(), self.standard, environment, episodes)
        return aggregate(rows, ValuationConfig()) | {"action_mse": action_mse(actor.act, self.held_out)}


def train(
    seeds: Sequence[int], episodes: int, arms: Mapping[str, Arm], policy: PolicyConfig, evaluation: Sequence[int]
) -> dict[str, dict[str, Scores]]:
    """{seed: {arm: scores}} of seeds that train together, each measured on the `evaluation` episodes."""
    benches = [Bench(seed, episodes, arms, policy) for seed in seeds]
    learner = Together(benches, [bench.source() for bench in benches]).learner(policy, action_levels(benches[0].real))
    for step in range(learner.num_steps):
        learner.step(step)
    actors = iter(learner.actors())
    return {str(b.seed): {s.arm: b.score(next(actors), evaluation) for s in b.specs} for b in benches}


def noisy(real: Trajectories, seed: int, size: float, name: str) -> Trajectories:
    """Trivial augmentation 1: every transition once more, with noise (in standard deviations) on both ends."""
    noise = size * numpy_generator(seed, "noise").standard_normal(real.z.shape).astype(np.float32)
    return replace(real, z=real.z + noise, ids=tuple(f"{i}/{name}" for i in real.ids))


def mixed(real: Trajectories, seed: int, name: str) -> Trajectories:
    """Trivial augmentation 2 (mixup): every episode with a share below a half of another one mixed in."""
    g = numpy_generator(seed, "mix")
    other = real.select(g.permutation(len(real)))
    share = np.minimum(s := g.beta(0.4, 0.4, (len(real), 1)), 1 - s).astype(np.float32)

    def blend(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        part = share.reshape(-1, *[1] * (a.ndim - 1))
        return ((1 - part) * a + part * b).astype(np.float32)

    return replace(
        real,
        z=blend(real.z, other.z),
        actions=blend(real.actions, other.actions),
        rewards=blend(real.rewards, other.rewards),
        ids=tuple(f"{i}/{name}" for i in real.ids),
    )


def oracle(episodes: Sequence[int]) -> Scores:
    """The controller with full knowledge, on the same evaluation episodes."""
    environment = make(CELL, len(episodes))
    controller = Oracle(environment)
    observation = environment.reset(episodes)
    controller.reset([])
    for _ in range(environment.max_steps):
        observation, *_ = environment.step(controller.act(observation))
    economics = environment.economics()
    rows = [{k: float(v[i]) for k, v in economics.items()} for i in range(len(episodes))]
    return aggregate(rows, ValuationConfig())
