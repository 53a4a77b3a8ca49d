"""Cloning on the built-in cell: `bc`, `act` and `flow` from 50 episodes, each alone, with rollouts, and with controls.

    python benchmarks/cloning.py --seeds 0 1 2 --out docs/data/cloning.jsonl

States stand in for latents. Rollouts branch in a Gaussian process under recorded actions and end where it doubts; there
is no trust network. A seed redraws episodes and policies; its arms share weights, noise and real rows.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from cheap_seeds import OwnRollouts, Together, play, recorded
from json_rows import add_row
from policy_material import SEALED

from phaseb.config.arms import STATE_NOISE_STD
from phaseb.config.data import ValuationConfig
from phaseb.config.dynamics import GPConfig
from phaseb.config.policy import PolicyConfig, ReplayConfig
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.policy.augmentation import RecordedSegments, RolloutGenerations
from phaseb.policy.batches import RunSpec
from phaseb.policy.behavior_metrics import action_levels, action_mse
from phaseb.policy.evaluation import aggregate
from phaseb.replay.local import LocalReplay, LocalSource
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.metrics import mean_interval
from phaseb.runtime.seeding import derive_seed
from phaseb.runtime.storage import to_jsonable
from phaseb.stages.augmentation import validated_rollouts

NUM_EPISODES, NUM_HELD_OUT, HELD_OUT_FIRST = 50, 20, 10_000
LEARNERS = ("bc", "act", "flow")
ARMS = ("real_only", "placebo", "state_noise", "rollouts")
SHARE = 0.5
MEASURES = ("net_value_per_hour", "mpl", "error_rate", "return")


class CloningSeed(OwnRollouts):
    """One seed by one learner: its replay, runs and hooks."""

    def __init__(self, seed: int, learner: str, policy: PolicyConfig, model: GPDynamics | None = None) -> None:
        self.seed = seed
        self.real, self.standard = recorded(seed, NUM_EPISODES)
        self.held_out, _ = recorded(seed, NUM_HELD_OUT, HELD_OUT_FIRST, self.standard)
        noise = {"state_noise": STATE_NOISE_STD}
        self.specs = [RunSpec(a, seed, learner=learner, clones=True, state_noise=noise.get(a, 0.0)) for a in ARMS]
        schema = TransitionSchema(self.real.z.shape[-1], self.real.actions.shape[-1], ARMS)
        self.replay = LocalReplay(schema, ReplayConfig())
        self.replay.insert(self.real, "real")
        self.model = model or GPDynamics.fit(GPConfig(), self.real, seed)
        plan = policy.augmentation
        branched = validated_rollouts(
            plan, self.model.rollout, self.real, self.specs, ("rollouts",), None, self, seed, held_out=self.held_out
        )
        placebo = RecordedSegments(plan, self.real, self.specs, ("placebo",), self, seed)
        self.hooks: Mapping[str, RolloutGenerations] = {"rollouts": branched, "placebo": placebo}

    def source(self, config: PolicyConfig) -> LocalSource:
        own = derive_seed(self.seed, "rows") % 2**31
        streams = [
            SampleSpec(s.name, own, SHARE, s.arm, "sampling", when_short="real")
            if s.arm in self.hooks
            else SampleSpec(s.name, own)
            for s in self.specs
        ]
        chunk_steps = config.chunk_steps_of(s.learner for s in self.specs)
        return self.replay.source(streams, config.batch_size, config.discount, chunk_steps=chunk_steps)


def measure(seed: int, learner: str, policy: PolicyConfig, model: GPDynamics | None) -> tuple[dict, GPDynamics]:
    """What the arms of one seed earn by one learner."""
    one, started = CloningSeed(seed, learner, policy, model), time.process_time()
    trained = Together([one], [one.source(policy)]).learner(policy, action_levels(one.real))
    for step in range(policy.num_steps):
        trained.step(step)
    seconds = (time.process_time() - started) / len(ARMS)
    scores = {}
    for spec, actor in zip(one.specs, trained.actors(), strict=True):
        earned = aggregate(play(actor, one.standard, SEALED), ValuationConfig())
        scores[spec.arm] = {name: earned[name] for name in MEASURES}
        scores[spec.arm]["action_mse"] = action_mse(actor.act, one.held_out)
    row = {"benchmark": "cloning", "learner": learner, "seed": seed, "num_steps": policy.num_steps}
    row["chunk_steps"] = policy.chunk_steps
    return row | {"core_seconds_a_policy": round(seconds, 1), "scores": scores}, one.model


def table(rows: Sequence[Mapping]) -> list[str]:
    """Net value of each learner, and paired differences: of its arms from `real_only`, of rollouts from the placebo."""
    lines = [
        "| learner | seeds | real_only, $/h | placebo less it | state_noise less it | rollouts less it | "
        "rollouts less placebo |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for learner in LEARNERS:
        own = [row["scores"] for row in rows if row["learner"] == learner]
        if not own:
            continue
        earned = {arm: np.array([scores[arm]["net_value_per_hour"] for scores in own]) for arm in ARMS}
        base = earned["real_only"]
        cells = [_told(base), *(_told(earned[arm] - base) for arm in ARMS[1:])]
        cells.append(_told(earned["rollouts"] - earned["placebo"]))
        lines.append(f"| {learner} | {len(own)} | {' | '.join(cells)} |")
    return lines


def _told(values: np.ndarray) -> str:
    mean, low, high = mean_interval(list(values))
    return f"{mean:.0f} [{low:.0f}, {high:.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--steps", type=int, default=PolicyConfig().num_steps)
    parser.add_argument("--chunk-steps", type=int, default=PolicyConfig().chunk_steps)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    policy, rows = PolicyConfig(num_steps=options.steps, chunk_steps=options.chunk_steps), []
    for seed in options.seeds:
        model = None
        for learner in options.learners:
            row, model = measure(seed, learner, policy, model)
            rows.append(row)
            print(json.dumps(to_jsonable(row)), flush=True)
            if options.out:
                add_row(options.out, to_jsonable(row))
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
