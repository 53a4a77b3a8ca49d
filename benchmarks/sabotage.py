"""World models broken on purpose: is harm kept out, and is a good model let in?

    python benchmarks/sabotage.py --seeds 20 --out sabotage.json     seven kinds, twenty cheap seeds
    python benchmarks/sabotage.py --good --seeds 10 --out good.json            does promotion fire on a good model?
    python benchmarks/sabotage.py --seeds 20 --fixed 20 --fixed-share 0.5 --out fixed.json     what ungated data does

Every seed redraws episodes and policies. Seven kinds: `untrained` and `report-2025` are trained ensembles' poor
relations; the rest break the physics itself, which is right in all else and never disagrees with itself, so that no
disagreement betrays them. For each kind two arms are held against `real_only`: `fixed_weight` draws the broken model's
whole rollouts ungated, `trust_weighted` follows the policy as far as the look at the model's skill allows. Where that
is no step at all its batches are real_only's, and so its policy is, bit for bit (tests/unit/policy/
test_do_no_harm.py), so it is not trained a second time (but with --verify, which compares the two). The decision is
the real one, by the sequential test in physics. The good model is the one that policies of a run branch in, fitted to
the seed's episodes, and its policies have a run's own size and steps: small ones gain from no model. Seeds that `--out`
already holds are not run again.
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
from broken_models import BREAKS, OTHER_CELL, PhysicsModel
from cheap_seeds import CheapSeed, Way, imagined, play, train

from phaseb.config.data import ValuationConfig
from phaseb.config.dynamics import GPConfig, GRUConfig
from phaseb.config.evaluation import PromotionConfig
from phaseb.config.policy import PolicyConfig
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.dynamics.gru_ensemble.learner import make_learner as make_world_model
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.actor import Actor
from phaseb.policy.augmentation import RolloutFn
from phaseb.policy.evaluation import Row, aggregate
from phaseb.promotion.contest import Contest
from phaseb.promotion.decision import decide
from phaseb.promotion.paired import scale_of
from phaseb.runtime.metrics import mean_interval
from phaseb.stages.negatives import founding_report_config

SMALL = GRUConfig.model_validate(
    {
        "num_members": 3,
        "hidden_size": 32,
        "head_size": 32,
        "num_blocks": 1,
        "action_lookahead": 0,
        "horizon": {"steps": 10, "start": 4},
    }
)
REPORT_STEPS = 150
FIXED_SHARE, STORED, PERTURBATION = 0.1, 60, 0.3
FIRST_EPISODE = 1_000_000
CONTEST = Contest(("trust_weighted",), ("real_only", "real_only_sac"))
Result = dict[str, Any]


def trained(config: GRUConfig, seed: CheapSeed, num_steps: int) -> RolloutFn:
    """An ensemble on the seed's episodes after so many steps; 0 leaves it as it was drawn."""
    learner = make_world_model(config, seed.real, WorkerContext(seed.seed))
    for step in range(num_steps):
        learner.step(step)
    return learner.bundle().rollout


def models(seed: CheapSeed) -> dict[str, RolloutFn]:
    """The seven kinds."""
    physics = PhysicsModel(seed.standard)
    return {
        "untrained": trained(SMALL, seed, 0),
        "report-2025": trained(founding_report_config(SMALL, REPORT_STEPS), seed, REPORT_STEPS),
        **{kind: brake(physics) for kind, brake in BREAKS.items()},
        "of another cell": PhysicsModel(seed.standard, OTHER_CELL),
    }


def good_model(seed: CheapSeed, policy: PolicyConfig) -> RolloutFn:
    """What a run's policies branch in."""
    return GPDynamics.fit(GPConfig(), seed.real, seed.seed).rollout


def prepare(seed: CheapSeed, args: argparse.Namespace) -> dict[str, int]:
    """Arms of a seed; returns the steps that each kind's model is followed."""
    kinds = {"good": good_model(seed, args.policy)} if args.good else models(seed)
    follow = {f"trust_weighted/{kind}": Way(args.share, follow=model) for kind, model in kinds.items()}
    seed.prepare(follow, args.policy)
    steps = {kind: seed.hooks[f"trust_weighted/{kind}"].horizon for kind in kinds}
    kept = {kind for kind, followed in steps.items() if followed or args.verify}
    ways = {"real_only": Way(), "real_only_sac": Way(learner="sac")} | {
        f"trust_weighted/{kind}": replace(follow[f"trust_weighted/{kind}"], learner="sac")
        for kind in kinds
        if kind in kept
    }
    if not args.good and seed.seed < args.first_seed + args.fixed:
        for kind, model in kinds.items():
            stored = imagined(model, seed.real, STORED, PERTURBATION, seed.seed, kind)
            ways[f"fixed_weight/{kind}"] = Way(args.fixed_share, stored=stored)
    seed.hooks.clear()
    seed.prepare(ways, args.policy)
    return steps


def decided(seed: CheapSeed, actors: Mapping[str, Actor], arm: str, args: argparse.Namespace) -> Result:
    """The decision on one arm as a run makes it, and what it cost."""

    def measure(name: str, policy_seed: int, episodes: Sequence[int]) -> list[Row]:
        return play(actors[name if name in CONTEST.controls else arm], seed.standard, episodes)

    real, made = seed.real, []
    earned = {"return": real.rewards.sum(1).astype(float), **real.metrics}
    scale = scale_of([{name: float(v[i]) for name, v in earned.items()} for i in range(len(real))], ValuationConfig())
    for budget in args.budget or [len(real)]:
        config = PromotionConfig(max_episodes=budget)
        decision = decide(config, CONTEST, ValuationConfig(), measure, [0], len(real), scale)
        made.append({"shipped": decision["shipped"], "reason": decision["reason"], **decision["budget"]})
    return made[0] | {"budgets": {str(one["max_episodes"]): one["shipped"] for one in made}}


def study(seed: CheapSeed, actors: Mapping[str, Actor], steps: Mapping[str, int], args: argparse.Namespace) -> Result:
    """One seed's row; scores only of what was trained."""
    episodes = range(FIRST_EPISODE, FIRST_EPISODE + args.evaluate)
    scores = {arm: aggregate(play(actor, seed.standard, episodes), ValuationConfig()) for arm, actor in actors.items()}
    row: Result = {"kinds": {}, "scores": scores}
    for kind, followed in steps.items():
        arm = f"trust_weighted/{kind}"
        same = not followed
        if arm in actors:
            same = _bit_identical(actors["real_only_sac"], actors[arm])
            assert same or followed, f"{kind}: nothing was followed, and yet the policy is another"
        told = {"shipped": "real_only", "spent_episodes": 0} if same else decided(seed, actors, arm, args)
        row["kinds"][kind] = {"steps": followed, "bit_identical": same, "compared": arm in actors, **told}
    return row


def _bit_identical(one: Actor, other: Actor) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def run(numbers: Sequence[int], args: argparse.Namespace) -> dict[str, Result]:
    """The rows of seeds that train together; a seed of which real_only alone is left has nothing to train."""
    start = time.process_time()
    seeds = [CheapSeed(number, args.episodes, args.held_out) for number in numbers]
    steps = {seed.seed: prepare(seed, args) for seed in seeds}
    busy = [seed for seed in seeds if len(seed.ways) > 1]
    actors = train(busy, args.policy) if busy else {}
    rows = {str(seed.seed): study(seed, actors.get(seed.seed, {}), steps[seed.seed], args) for seed in seeds}
    print(f"seeds {numbers}: {time.process_time() - start:.0f} s of one core", flush=True)
    return rows


def table(rows: Mapping[str, Result], metric: str) -> list[Result]:
    """Each kind's arms against real_only, paired by seed: mean difference as a share of real_only's mean."""
    base = [row["scores"]["real_only"][metric] for row in rows.values() if row["scores"]]
    mean = f" of real_only {np.mean(base):.2f} in {len(base)}" if base else ": nothing was followed, nothing trained"
    print(f"{len(rows)} seeds; {metric}{mean}; differences as shares of it")
    print(
        f"{'model':28s} {'seeds':>6s} {'steps':>6s} {'same':>6s} {'real_only':>10s} "
        f"{'trust_weighted':>30s} {'fixed_weight':>30s}"
    )
    told = []
    for kind in next(iter(rows.values()))["kinds"]:
        of = [row["kinds"][kind] for row in rows.values()]
        one = {
            "kind": kind,
            "seeds": len(of),
            "mean_steps": float(np.mean([o["steps"] for o in of])),
            "bit_identical": sum(o["bit_identical"] for o in of),
            "real_only_shipped": sum(o["shipped"] == "real_only" for o in of),
            "trust_weighted": _share(rows, "trust_weighted", kind, metric),
            "fixed_weight": _share(rows, "fixed_weight", kind, metric),
        }
        print(
            f"{kind:28s} {one['seeds']:6d} {one['mean_steps']:6.1f} {one['bit_identical']:6d} "
            f"{one['real_only_shipped']:10d} {_cell(one['trust_weighted'])} "
            f"{_cell(one['fixed_weight'])}"
        )
        told.append(one)
    return told


def _share(rows: Mapping[str, Result], arm: str, kind: str, metric: str) -> list[float] | None:
    """Mean, interval and number of seeds of an arm's difference to real_only, as a share of real_only's mean."""
    pairs = []
    for row in rows.values():
        scores = row["scores"]
        if f"{arm}/{kind}" in scores:
            pairs.append((scores[f"{arm}/{kind}"][metric], scores["real_only"][metric]))
        elif arm == "trust_weighted" and row["kinds"][kind]["bit_identical"]:
            pairs.append((0.0, 0.0))  # the same policy: no difference, whatever it earns
    if not pairs:
        return None
    earned = [row["scores"]["real_only"][metric] for row in rows.values() if row["scores"]]
    size = abs(float(np.mean(earned))) if earned else 1.0  # nothing was trained: all differences are 0
    return [*(value / size for value in mean_interval([a - b for a, b in pairs])), len(pairs)]


def _cell(share: Sequence[float] | None) -> str:
    if share is None:
        return f"{'':>30s}"
    return f"{share[0]:+8.1%} [{share[1]:+7.1%},{share[2]:+7.1%}]{share[3]:4.0f}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--good", action="store_true", help="only the good model, and a run's own policy settings")
    parser.add_argument("--fixed", type=int, default=4, help="seeds, the first, that fixed_weight is trained on too")
    parser.add_argument("--verify", action="store_true", help="train trust_weighted even where nothing was followed")
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--held-out", type=int, default=40, help="episodes on which a model's skill is looked at")
    parser.add_argument("--share", type=float, default=0.5, help="synthetic share of a batch of trust_weighted")
    parser.add_argument("--fixed-share", type=float, default=FIXED_SHARE, help="of fixed_weight")
    parser.add_argument("--evaluate", type=int, default=100, help="evaluation episodes a policy")
    parser.add_argument(
        "--budget",
        type=int,
        nargs="+",
        help="physics episodes a decision may spend, the first counts; absent: the training episodes'",
    )
    parser.add_argument("--together", type=int, default=2, help="seeds that train together")
    parser.add_argument("--policy", type=json.loads, default={}, help="JSON of settings of `policy` that differ")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    small = {
        "num_steps": 1500,
        "width": 48,
        "batch_size": 48,
        "runs_per_batch": 24,
        "augmentation": {"refresh_steps": 300, "starts": 300},
        "actor_ema": 0.02,
        "offline": {"bc_fraction": 0.25, "critic_warmup_fraction": 0.1},
    }
    args.policy = PolicyConfig.model_validate(({} if args.good else small) | args.policy)
    return args


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    rows = json.loads(args.out.read_text())["rows"] if args.out and args.out.exists() else {}
    missing = [s for s in range(args.first_seed, args.first_seed + args.seeds) if str(s) not in rows]
    while missing:
        part, missing = missing[: args.together], missing[args.together :]
        rows |= run(part, args)
        if args.out:
            args.out.write_text(json.dumps({"rows": rows}, indent=1))
    told = {metric: table(rows, metric) for metric in ("return", "net_value_per_hour")}
    print(json.dumps({"benchmark": "sabotage", "episodes": args.episodes, "seeds": len(rows), **told}))


if __name__ == "__main__":
    main()
