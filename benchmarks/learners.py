"""What phaseb's learners make of real episodes alone, on public tasks and on the cell: one row a (task, variant).

    python benchmarks/learners.py --tasks dmsd-50 --variants bc iql edac sac --seeds 0 1 2 --out learners.jsonl

States are turned and standardised as a run's encoder does it. A variant is a learner's name under `policy.learners`,
or NAME=JSON: {"learner": ..., "scalars": {...}, "policy": {...}} lays a run's scalars and settings of `policy` over it.
A row that the file holds already is not made again. Public tasks are read from the folder PHASEB_ARENA.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cheap_seeds import CELL, Together, recorded
from learner_worlds import WORLDS, World, read
from numpy.typing import NDArray

from phaseb.config.data import ValuationConfig
from phaseb.config.policy import PolicyConfig, ReplayConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.latents.projection import fit_projection
from phaseb.latents.standardise import Standardizer
from phaseb.policy.actor import Actor
from phaseb.policy.batches import RunSpec
from phaseb.policy.behavior_metrics import action_levels, action_mse
from phaseb.policy.evaluation import aggregate, evaluate
from phaseb.policy.gym_environment import GymVector
from phaseb.replay.local import LocalReplay, LocalSource
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.metrics import mean_interval
from phaseb.runtime.seeding import derive_seed
from phaseb.workcell import make

CELLS = {"cell-15": 15, "cell-50": 50, "cell-500": 500}
SEALED = range(1_000_000, 1_000_200)
FIRST_SEED = 5_000_000  # of the public tasks' evaluation episodes


@dataclass(frozen=True)
class Variant:
    """A learner with settings laid over it."""

    name: str
    learner: str
    scalars: Mapping[str, float] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Variant":
        name, _, settings = text.partition("=")
        return cls(name, **{"learner": name, **json.loads(settings or "{}")})


class StateLatents:
    """States (N, S) as a run's latents: standardised sensors, turned, standardised again."""

    def __init__(self, real: Trajectories, seed: int) -> None:
        inside = np.arange(real.z.shape[1])[None] <= real.lengths[:, None]
        rows = torch.from_numpy(real.z[inside])
        self.sensors = Standardizer(rows.shape[1]).fit_units(rows)
        candidates = self.sensors(rows)
        self.readout = fit_projection([candidates], rows.shape[1], rows.shape[1], seed)
        turned = self.readout(candidates)
        self.standard = Standardizer(turned.shape[1]).fit(turned, 1e-3)

    def __call__(self, state: NDArray[np.floating]) -> NDArray[np.float32]:
        rows = torch.from_numpy(np.asarray(state, np.float32))
        return np.asarray(self.standard(self.readout(self.sensors(rows))).numpy(), np.float32)

    def reset(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        return self(observation["state"])

    step = reset


class Bench:
    """One seed of a task: its episodes in latents, its replay, its run."""

    hooks: Mapping[str, Any] = {}

    def __init__(self, task: str, seed: int) -> None:
        self.task, self.seed = task, seed
        if task in CELLS:
            self.real, self.encoder = recorded(seed, CELLS[task])
            self.held_out, _ = recorded(seed, 20, 10_000, self.encoder)
        else:
            real, held_out = read(WORLDS[task], seed)
            self.encoder = StateLatents(real, seed)
            self.real, self.held_out = (replace(x, z=self.encoder(x.z)) for x in (real, held_out))
        self.specs: list[RunSpec] = []
        schema = TransitionSchema(self.real.z.shape[-1], self.real.actions.shape[-1], ("weight",))
        self.replay = LocalReplay(schema, ReplayConfig())
        self.replay.insert(self.real, "real")

    def source(self, policy: PolicyConfig) -> LocalSource:
        streams = [SampleSpec(spec.name, derive_seed(self.seed, "rows") % 2**31) for spec in self.specs]
        return self.replay.source(streams, policy.batch_size, policy.discount)

    def measure(self, actor: Actor, episodes: int) -> dict[str, float]:
        mse = action_mse(actor.act, self.held_out)
        if self.task in CELLS:
            rows = evaluate(actor.closed_loop(), self.encoder, make(CELL, 100), SEALED)
            return {"score": aggregate(rows, ValuationConfig())["net_value_per_hour"], "action_mse": mse}
        world = WORLDS[self.task]
        returns = play(world, actor, self.encoder, episodes or world.episodes)
        return {"score": world.score(float(returns.mean())), "return": float(returns.mean()), "action_mse": mse}


def play(world: World, actor: Actor, encoder: StateLatents, episodes: int) -> NDArray[np.float64]:
    """Returns of the policy's mean action, one an episode; the same episodes whatever the policy."""
    environment = GymVector("arena", episodes, world.max_steps, make_one=world.make)
    rows = evaluate(actor.closed_loop(), encoder, environment, range(FIRST_SEED, FIRST_SEED + episodes))
    return np.array([row["return"] for row in rows])


def train(benches: Sequence[Bench], variant: Variant, policy: PolicyConfig) -> tuple[list[Actor], float]:
    """The policies of a variant, one a seed, trained together; and the seconds that it took."""
    given = policy.model_dump() | {k: v for k, v in variant.policy.items() if k != "offline"}
    given["offline"] = policy.offline.model_dump() | variant.policy.get("offline", {})
    config = PolicyConfig.model_validate(given)
    for bench in benches:
        bench.specs = [RunSpec(variant.name, bench.seed, variant.scalars, variant.learner)]
    together = Together(benches, [bench.source(config) for bench in benches])
    learner = together.learner(config, action_levels(benches[0].real))
    learner.hook = None
    began = time.process_time()
    for step in range(learner.num_steps):
        learner.step(step)
    return learner.actors(), time.process_time() - began


def run(task: str, variant: Variant, seeds: Sequence[int], policy: PolicyConfig, episodes: int) -> dict[str, Any]:
    """The row of a task and a variant."""
    benches = [Bench(task, seed) for seed in seeds]
    actors, seconds = train(benches, variant, policy)
    scores = [bench.measure(actor, episodes) for bench, actor in zip(benches, actors, strict=True)]
    mean, low, high = mean_interval([row["score"] for row in scores])
    return {
        "benchmark": "learners",
        "task": task,
        "variant": variant.name,
        "learner": variant.learner,
        "settings": {"scalars": dict(variant.scalars), "policy": dict(variant.policy)},
        "seeds": list(seeds),
        "score": [round(mean, 2), round(low, 2), round(high, 2)],
        "seconds": round(seconds, 1),
        "scores": [round(row["score"], 2) for row in scores],
        "action_mse": [round(row["action_mse"], 4) for row in scores],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=[*WORLDS, *CELLS], required=True)
    parser.add_argument("--variants", nargs="+", type=Variant.parse, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--policy", type=json.loads, default={}, help="JSON of settings of `policy` that differ")
    parser.add_argument("--episodes", type=int, default=0, help="evaluation episodes a seed; 0: the task's own")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    policy = PolicyConfig.model_validate(args.policy)
    done = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out and args.out.exists() else []
    for task in args.tasks:
        for variant in args.variants:
            if any((row["task"], row["variant"], row["seeds"]) == (task, variant.name, args.seeds) for row in done):
                continue
            row = run(task, variant, args.seeds, policy, args.episodes)
            print(json.dumps(row), flush=True)
            if args.out:
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
