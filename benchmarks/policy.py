"""What synthetic data does to a policy: the arms side by side, paired by seed, in the built-in cell.

    python benchmarks/policy.py --episodes 50 --seeds 0 1 2 --out policy-50.json

Every seed redraws the episodes, the world model and the policies. Latents are standardised states, so that the table
is about the policy and not about the encoder. Rows: real_only; `noise` and `mix`, the two trivial augmentations
(noise on real transitions, convex mixing of two of them); `ungated` branched rollouts; `gated` ones. `oracle` is the
controller with full knowledge. Seeds that `--out` already holds are not run again.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phaseb.config.environment import EnvironmentConfig
from phaseb.config.policy import PolicyConfig
from phaseb.config.replay import ReplayConfig
from phaseb.config.valuation import ValuationConfig
from phaseb.config.world_model import HorizonConfig, WorldModelConfig
from phaseb.data_parallel import LearnerContext
from phaseb.episodes.trajectories import Trajectories
from phaseb.metrics import mean_interval
from phaseb.policy.actor import Actor
from phaseb.policy.augmentation import BranchedRollouts
from phaseb.policy.batches import RunSpec
from phaseb.policy.behaviour import action_levels, action_mse
from phaseb.policy.evaluation import aggregate, evaluate
from phaseb.policy.learner import make_learner
from phaseb.replay.local import LocalReplay, LocalSource
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.seeding import derive_seed, numpy_generator
from phaseb.workcell import make
from phaseb.workcell.collect import collect_episodes
from phaseb.workcell.oracle import Oracle
from phaseb.world_model.learner import make_learner as make_world_model

CELL = EnvironmentConfig(observation="state")
ARMS = ("real_only", "noise", "mix", "ungated", "gated")
Scores = Mapping[str, float]
TOLD = ("mpl", "error_rate", "energy_wh_per_unit", "return", "net_value_per_hour", "action_mse")


class Standard:
    """States as latents, standardised with the training episodes' statistics (std floored at 5 % of the largest)."""

    def __init__(self, states: np.ndarray) -> None:
        flat = states.reshape(-1, states.shape[-1])
        self.mean, self.std = flat.mean(0), np.maximum(flat.std(0), 0.05 * flat.std(0).max())

    def __call__(self, state: np.ndarray) -> np.ndarray:
        return ((state - self.mean) / self.std).astype(np.float32)

    def reset(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        return self(observation["state"])

    step = reset


def record(seed: int, count: int, first: int = 0, standard: Standard | None = None) -> tuple[Trajectories, Standard]:
    """Episodes number first .. first + count - 1 of the data set `seed`."""
    episodes = collect_episodes(CELL, seed, range(first, first + count))
    states = np.stack([e.state for e in episodes])
    standard = standard or Standard(states)
    rewards = np.stack([e.rewards for e in episodes])
    return Trajectories(
        z=standard(states), actions=np.stack([e.actions for e in episodes]), rewards=rewards,
        terminals=np.zeros_like(rewards), lengths=np.full(count, rewards.shape[1]),
        ids=tuple(e.id for e in episodes), splits=("train",) * count,
    ), standard  # fmt: skip


class Bench:
    """One seed: its data, world model and replay, and the streams of its runs."""

    def __init__(self, seed: int, args: argparse.Namespace) -> None:
        self.seed, self.args = seed, args
        self.real, self.standard = record(seed, args.episodes)
        self.held_out, _ = record(seed, 20, 10_000, self.standard)
        self.specs = [RunSpec(arm, seed) for arm in args.arms]
        schema = TransitionSchema(self.real.z.shape[-1], self.real.actions.shape[-1], tuple(args.arms))
        self.replay = LocalReplay(schema, ReplayConfig())
        self.replay.insert(self.real, "real")
        for arm, copies in (("noise", noisy(self.real, seed)), ("mix", mixed(self.real, seed))):
            if arm in args.arms:
                self.replay.insert(copies, "synthetic", {arm: copies.mask})
        self.hooks = [self._hook(arm, args.policy) for arm in ("ungated", "gated") if arm in args.arms]

    def _hook(self, arm: str, config: PolicyConfig) -> BranchedRollouts:
        plan = config.augmentation
        if arm == "ungated":
            lax = {"min_skill": -np.inf, "min_worst_skill": -np.inf, "min_reward_skill": -np.inf}
            plan = plan.model_copy(update={"cut_quantile": 1.0, "penalty": 0.0, **lax})
        imagine = self.world_model().rollout
        hook = BranchedRollouts(
            plan, imagine, self.real, self.specs, (arm,), None, self, self.seed, held_out=self.held_out
        )
        if self.args.verbose:
            print(arm, "skills", {name: values.round(2).tolist() for name, values in hook.skills.items()},
                  "horizon", hook.horizon, "limits", hook.limits.round(3).tolist(), flush=True)  # fmt: skip
        if arm == "ungated":
            hook.limits = np.full(plan.horizon, np.inf)
        return hook

    def world_model(self):
        if not hasattr(self, "_world_model"):
            learner = make_world_model(self.args.world_model, self.real, LearnerContext(self.seed))
            for step in range(learner.num_steps):
                learner.step(step)
            self._world_model = learner.bundle()
        return self._world_model

    def add(self, run: int, rollouts: Trajectories) -> None:
        if len(rollouts):
            self.replay.insert(rollouts, "synthetic", {self.specs[run].arm: rollouts.weights})

    def drop(self, run: int, rollouts: Trajectories) -> None:
        if len(rollouts):
            self.replay.set_weights(self.specs[run].arm, rollouts, "synthetic", np.zeros_like(rollouts.rewards))

    def source(self) -> LocalSource:
        policy, own = self.args.policy, derive_seed(self.seed, "rows") % 2**31
        share = self.args.share
        streams = [
            SampleSpec(s.name, own) if s.arm == "real_only"
            else SampleSpec(s.name, own, share, s.arm, "sampling") for s in self.specs
        ]  # fmt: skip
        return self.replay.source(streams, policy.batch_size, policy.discount)


class Benches:
    """Several seeds that train together: a batch source and an augmentation hook over all of them."""

    def __init__(self, benches: Sequence[Bench]) -> None:
        self.benches = benches
        self.sources = [bench.source() for bench in benches]

    def sample(self, step: int, num_batches: int) -> dict[str, np.ndarray]:
        parts = [source.sample(step, num_batches) for source in self.sources]
        return {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}

    def generate(self, step: int, actors: Sequence[Actor]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for i, bench in enumerate(self.benches):
            part = actors[i * len(bench.specs) : (i + 1) * len(bench.specs)]
            for hook in bench.hooks:
                metrics |= hook.generate(step, part)
        return metrics

    def state_dict(self) -> dict[str, object]:
        return {f"seed{b.seed}": {f"hook{i}": h.state_dict() for i, h in enumerate(b.hooks)} for b in self.benches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for bench in self.benches:
            for i, hook in enumerate(bench.hooks):
                hook.load_state_dict(state[f"seed{bench.seed}"][f"hook{i}"])


def noisy(real: Trajectories, seed: int) -> Trajectories:
    """Trivial augmentation 1: every transition once more, with noise of 3 % of a standard deviation on both ends."""
    noise = 0.03 * numpy_generator(seed, "noise").standard_normal(real.z.shape).astype(np.float32)
    return replace(real, z=real.z + noise, ids=tuple(f"{i}/noise" for i in real.ids))


def mixed(real: Trajectories, seed: int) -> Trajectories:
    """Trivial augmentation 2 (mixup): every episode with a share below a half of another one mixed in."""
    g = numpy_generator(seed, "mix")
    other = real.select(g.permutation(len(real)))
    share = np.minimum(s := g.beta(0.4, 0.4, (len(real), 1)), 1 - s).astype(np.float32)

    def blend(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        part = share.reshape(-1, *[1] * (a.ndim - 1))
        return ((1 - part) * a + part * b).astype(np.float32)

    return replace(
        real, z=blend(real.z, other.z), actions=blend(real.actions, other.actions),
        rewards=blend(real.rewards, other.rewards), ids=tuple(f"{i}/mix" for i in real.ids),
    )  # fmt: skip


def score(actor: Actor, bench: Bench, count: int) -> dict[str, float]:
    environment = make(CELL, min(count, 100))
    rows = evaluate(actor.act, bench.standard, environment, range(1_000_000, 1_000_000 + count))
    return aggregate(rows, ValuationConfig()) | {"action_mse": action_mse(actor.act, bench.held_out)}


def oracle(count: int) -> dict[str, float]:
    environment = make(CELL, count)
    controller = Oracle(environment)
    observation = environment.reset(range(1_000_000, 1_000_000 + count))
    controller.reset([])
    for _ in range(environment.max_steps):
        observation, *_ = environment.step(controller.act(observation))
    economics = environment.economics()
    rows = [{k: float(v[i]) for k, v in economics.items()} for i in range(count)]
    return aggregate(rows, ValuationConfig())


def train(seeds: Sequence[int], args: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """{seed: {arm: scores}} of seeds that train together."""
    benches = [Bench(seed, args) for seed in seeds]
    together = Benches(benches)
    specs = [spec for bench in benches for spec in bench.specs]
    levels = action_levels(benches[0].real)
    learner = make_learner(args.policy, together, specs, LearnerContext(0), together, levels=levels)
    start = time.process_time()
    for step in range(learner.num_steps):
        metrics = learner.step(step)
        if args.verbose and (made := {k: round(v, 3) for k, v in metrics.items() if "augmentation" in k}):
            print(step, made, flush=True)
        if args.watch and (step + 1) % args.watch == 0 and step + 1 < learner.num_steps:
            tell(step + 1, benches, learner.actors(), 50)
    print(f"trained {len(specs)} runs in {time.process_time() - start:.0f} s of one core", flush=True)
    actors = iter(learner.actors())
    return {str(b.seed): {s.arm: score(next(actors), b, args.evaluate) for s in b.specs} for b in benches}


def tell(step: int, benches: Sequence[Bench], actors: Sequence[Actor], count: int) -> None:
    rest = iter(actors)
    for bench in benches:
        for spec in bench.specs:
            s = score(next(rest), bench, count)
            print(f"  step {step} {spec.name}: net {s['net_value_per_hour']:.0f} mpl {s['mpl']:.0f} "
                  f"errors {s['error_rate']:.1%} return {s['return']:.2f}", flush=True)  # fmt: skip


def table(results: Mapping[str, Mapping[str, Scores]], best: Scores) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    arms = next(iter(results.values()))
    print(f"{'arm':12s} {'net $/h':>22s} {'units/h':>22s} {'errors':>9s} {'Wh/unit':>9s} {'action MSE':>11s} "
          f"{'gain over real_only, share of the gap':>40s}")  # fmt: skip
    for arm in arms:
        cells = {name: mean_interval([r[arm][name] for r in results.values()]) for name in TOLD}
        gains = [r[arm]["net_value_per_hour"] - r["real_only"]["net_value_per_hour"] for r in results.values()]
        gaps = [best["net_value_per_hour"] - r["real_only"]["net_value_per_hour"] for r in results.values()]
        gain = mean_interval(gains)
        net, mpl = cells["net_value_per_hour"], cells["mpl"]
        print(f"{arm:12s} {net[0]:7.0f} [{net[1]:5.0f}, {net[2]:5.0f}] {mpl[0]:7.0f} [{mpl[1]:5.0f}, {mpl[2]:5.0f}] "
              f"{cells['error_rate'][0]:8.1%} {cells['energy_wh_per_unit'][0]:9.5f} {cells['action_mse'][0]:11.3f} "
              f"{gain[0]:+9.0f} [{gain[1]:5.0f}, {gain[2]:5.0f}] {np.mean(gains) / np.mean(gaps):8.0%}")  # fmt: skip
        rows.append({"arm": arm, **{n: list(c) for n, c in cells.items()}, "gain": list(gain),
                     "gap_share": float(np.mean(gains) / np.mean(gaps))})  # fmt: skip
    net, mpl = best['net_value_per_hour'], best['mpl']
    print(f"{'oracle':12s} {net:7.0f} {'':16s}{mpl:7.0f} {'':15s} {best['error_rate']:8.1%}")
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--share", type=float, default=0.5, help="synthetic share of a batch")
    parser.add_argument("--evaluate", type=int, default=200, help="evaluation episodes a policy")
    parser.add_argument("--together", type=int, default=3, help="seeds that train together")
    parser.add_argument("--policy", type=json.loads, default={}, help="JSON of settings of `policy` that differ")
    parser.add_argument("--world-model-steps", type=int, default=1500)
    parser.add_argument("--watch", type=int, default=0, help="evaluate every so many steps")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.policy = PolicyConfig.model_validate(args.policy)
    steps = args.policy.augmentation.horizon
    args.world_model = WorldModelConfig(
        num_members=5, hidden_size=64, head_size=64, num_steps=args.world_model_steps,
        horizon=HorizonConfig(steps=max(steps, 8), start=4),
    )  # fmt: skip
    return args


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    results = json.loads(args.out.read_text())["seeds"] if args.out and args.out.exists() else {}
    missing = [seed for seed in args.seeds if str(seed) not in results]
    best = oracle(args.evaluate)
    while missing:
        part, missing = missing[: args.together], missing[args.together :]
        results |= train(part, args)
        if args.out:
            args.out.write_text(json.dumps({"seeds": results, "oracle": best}, indent=1))
    rows = table(results, best)
    print(json.dumps({"benchmark": "policy", "episodes": args.episodes, "seeds": sorted(results), "arms": rows,
                      "oracle": best}))  # fmt: skip


if __name__ == "__main__":
    main()
