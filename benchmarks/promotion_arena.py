"""How often does a decision without an environment promote a worse policy, on public tasks?

    PHASEB_ARENA=FOLDER python benchmarks/promotion_arena.py --tasks dmsd-50 hopper-mr --seeds 0 1 --out rows.jsonl

Every seed of a task draws its episodes and makes a pool of policies of every quality: each learner after three lengths
of training, and the same with weights disturbed. Each policy plays in physics: the truth. Each ordered pair of a pool
is a case, decided as a run decides: by returns in generators where their forecasts have the skill for it, else by
fitted Q evaluation. A promotion is false where the candidate's return is not above the baseline's. A row that the file
holds already is not made again.
"""

import argparse
import copy
import itertools
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from json_rows import add_row, read_rows
from learner_worlds import WORLDS
from learners import Bench, Variant, play, train
from numpy.typing import NDArray
from promotion import PAIR, STEPS_PLAYED, in_models, rates
from scipy.stats import spearmanr

from phaseb.config.evaluation import FqeConfig, PromotionConfig
from phaseb.config.policy import PolicyConfig
from phaseb.policy.actor import Actor
from phaseb.policy.fqe import fitted_q_evaluation
from phaseb.promotion.decision import decide_by_estimate
from phaseb.runtime.seeding import torch_generator

LEARNERS = ("bc", "iql", "sac", "edac")
LENGTHS = (300, 1500, 5000)
"""Learner steps."""
DISTURBED = 0.3
"""Standard deviation of the noise on the weights of disturbed policies, relative to that of the weights."""


def make_pool(bench: Bench) -> dict[str, Actor]:
    """Policies of every quality, by name."""
    pool = {}
    for learner, steps in itertools.product(LEARNERS, LENGTHS):
        (actor,), _ = train([bench], Variant(learner, learner), PolicyConfig(num_steps=steps))
        pool[f"{learner}@{steps}"] = actor
    for learner in LEARNERS:
        pool[f"{learner} disturbed"] = disturbed(pool[f"{learner}@{LENGTHS[-1]}"], bench.seed)
    return pool


def disturbed(actor: Actor, seed: int) -> Actor:
    """A copy with noise on its weights."""
    other, generator = copy.deepcopy(actor), torch_generator(seed, "disturbed")
    with torch.no_grad():
        for weights in other.policy.stack.weights:
            weights += DISTURBED * weights.std(correction=0) * torch.randn(weights.shape, generator=generator)
    return other


Estimates = tuple[Literal["fqe", "model"], NDArray[Any], float, NDArray[Any]]


def estimates(bench: Bench, pool: dict[str, Actor]) -> Estimates:
    """What a run would decide by: the method, values (P, M), their bias, and departures (P,)."""
    actors = list(pool.values())
    by_values = fitted_q_evaluation(FqeConfig(), actors, bench.real, bench.seed)
    played = in_models(bench.real, actors, min(STEPS_PLAYED, int(bench.real.lengths.max())), bench.seed)
    if played.refused:
        return "fqe", by_values.values, 0.0, by_values.support
    return "model", played.values, played.bias, by_values.support


def run(task: str, seed: int, episodes: int) -> dict[str, Any]:
    """The row of a task and a seed."""
    began, bench = time.process_time(), Bench(task, seed)
    pool = make_pool(bench)
    method, values, bias, support = estimates(bench, pool)
    truth = {name: float(play(WORLDS[task], actor, bench.encoder, episodes).mean()) for name, actor in pool.items()}
    scale = {"return": float(np.abs(bench.real.rewards.sum(1)).mean())}
    cases = []
    for (i, base), (j, new) in itertools.permutations(enumerate(pool), 2):
        own, far = ({"real_only": of[[i]], "trust_weighted": of[[j]]} for of in (values, support))
        decision = decide_by_estimate(
            PromotionConfig(), PAIR, own, far, len(bench.real), scale, method=method, bias=bias
        )
        cases.append({"promoted": decision["promoted"], "return": truth[new] - truth[base]})
    return {
        "benchmark": "promotion_arena",
        "task": task,
        "seed": seed,
        "method": method,
        "episodes": episodes,
        **{name: round(value, 4) for name, value in rates(cases, "return").items()},
        "rank_correlation": round(float(spearmanr(values.mean(1), list(truth.values()))[0]), 3),
        "returns": {name: round(value, 2) for name, value in truth.items()},
        "core_minutes": round((time.process_time() - began) / 60, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(WORLDS), required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--episodes", type=int, default=40, help="evaluation episodes of a policy")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    done = {(row["task"], row["seed"]) for row in read_rows(args.out)}
    for task, seed in itertools.product(args.tasks, args.seeds):
        if (task, seed) not in done:
            row = run(task, seed, args.episodes)
            add_row(args.out, row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
