"""What synthetic data does to a policy: the arms side by side, paired by seed, in the built-in cell.

    python benchmarks/policy.py --episodes 50 --out docs/data/policy-50.json
    python benchmarks/policy.py --episodes 15 --out docs/data/policy-15.json

Every seed redraws the episodes, the short-range model and the policies; arms of one seed share episodes, weights, noise
and real rows. Latents are standardised states, so that the table is about the policy and not about the encoder. Rows:
`real_only`, the same with a milder advantage, and EDAC, the runners-up of the search; `noise` and `mix`, the two
trivial augmentations (noise on real transitions, convex mixing of two of them), and those of them that a search chose;
`trust_weighted`: branched rollouts that are cut where the model does not know and pay for what it doubts (the trust
network, which asks whether rollouts look real, is no part of this table); `ungated`: the same without cut and price;
`segments_10` and `segments_20`: of fixed length, neither cut nor adapted, but priced. `oracle` is the controller with
full knowledge. What `--out` holds of a seed and an arm is not trained again: a study goes on where it was stopped.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from policy_material import SEALED, Arm, Scores, oracle, train

from phaseb.config.policy import PolicyConfig
from phaseb.policy.evaluation import LIMITS
from phaseb.runtime.metrics import mean_interval

FIXED = {"min_skill": -1e9, "min_reward_skill": -1e9, "cut_quantile": 1.0}
SHARP = {"iql_beta": 10.0}  # won the search; the schema's default, milder, is better at fifty episodes
EDAC = {"algorithm": "sac", "diversity_weight": 1.0, "bc_weight": 10.0}
BASELINES = ("real_only", "real_only_milder", "real_only_edac")
ARMS = {
    "real_only": Arm("real", scalars=SHARP),
    "real_only_milder": Arm("real"),
    "real_only_edac": Arm("real", learner={"switches": True, "num_critics": 5, "offline": EDAC}),
    "noise": Arm("noise", scalars=SHARP),
    "mix": Arm("mix", scalars=SHARP),
    "mix_milder": Arm("mix"),  # won the search of trivial augmentations at fifty episodes
    "mix_quarter": Arm("mix", share=0.25),  # and at fifteen
    "trust_weighted": Arm("rollouts"),
    "ungated": Arm("rollouts", gated=False),
    "segments_10": Arm("rollouts", plan={"horizon": 10, **FIXED}),
    "segments_20": Arm("rollouts", plan={"horizon": 20, "starts": 250, **FIXED}),
}
HEADLINE = ("real_only", "noise", "mix", "trust_weighted")
TOLD = ("mpl", "error_rate", "energy_wh_per_unit", "return", "net_value_per_hour", "action_mse")
NET = "net_value_per_hour"
Results = dict[str, dict[str, Scores]]


def study(args: argparse.Namespace, results: Results) -> Results:
    """Train what is missing, a few seeds and one arm at a time, and write after each."""
    until = time.monotonic() + 60 * args.minutes
    for arm in args.arms:
        missing = [seed for seed in args.seeds if arm not in results.get(str(seed), {})]
        for first in range(0, len(missing), args.together):
            if time.monotonic() > until:
                return results
            part, start = missing[first : first + args.together], time.process_time()
            made = train(part, args.episodes, {arm: ARMS[arm]}, ARMS[arm].policy(args.policy), SEALED)
            for seed, scores in made.items():
                results.setdefault(seed, {}).update(scores)
            seconds = (time.process_time() - start) / len(part)
            nets = ", ".join(f"{made[str(s)][arm][NET]:.0f}" for s in part)
            print(f"{arm}, seeds {part}: net {nets} $/h; {seconds:.0f} s of one core a seed", flush=True)
            write(args, results)
    return results


def write(args: argparse.Namespace, results: Results) -> None:
    if args.out is None:
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    ordered = {seed: results[seed] for seed in sorted(results, key=int)}
    text = json.dumps(
        {"episodes": args.episodes, "evaluation_episodes": len(SEALED), "seeds": ordered, "oracle": oracle(SEALED)},
        indent=1,
    )
    half = args.out.with_suffix(".half")
    half.write_text(text + "\n")
    half.replace(args.out)


def table(results: Results, best: Scores) -> list[dict[str, object]]:
    """One row an arm, printed: means over its seeds, and its gain over real_only on the seeds that have both."""
    print(
        f"{'arm':15s} {'seeds':>5s} {'net $/h':>20s} {'units/h':>20s} {'errors':>20s} {'Wh/unit':>9s} "
        f"{'action MSE':>11s} {'gain over real_only, share of the gap':>40s}"
    )
    rows: list[dict[str, object]] = []
    for arm in ARMS:
        if any(arm in scores for scores in results.values()):
            rows.append(row(arm, results, best))
            tell(rows[-1])
    for arm in ("noise", "mix", "mix_milder", "mix_quarter", "ungated", "segments_10", "segments_20"):
        both = [scores for scores in results.values() if arm in scores and "trust_weighted" in scores]
        if both:
            mean, low, high = mean_interval([scores["trust_weighted"][NET] - scores[arm][NET] for scores in both])
            print(f"trust_weighted - {arm}: {mean:+.0f} [{low:+.0f}, {high:+.0f}] $/h over {len(both)} seeds")
    print(f"{'oracle':15s} {'':5s} {best[NET]:6.0f} {'':13s} {best['mpl']:6.0f} {'':13s} {best['error_rate']:6.1%}")
    return rows


def reference(results: Results) -> str:
    """The best of the policies without synthetic data, among those trained on as many seeds as any."""
    nets = {a: [s[a][NET] for s in results.values() if a in s] for a in BASELINES}
    most = max(len(found) for found in nets.values())
    return max((a for a, found in nets.items() if len(found) == most), key=lambda a: float(np.mean(nets[a] or [0])))


def row(arm: str, results: Results, best: Scores) -> dict[str, object]:
    held, base = {seed: scores[arm] for seed, scores in results.items() if arm in scores}, reference(results)
    paired = [seed for seed in held if base in results[seed]]
    gains = [held[s][NET] - results[s][base][NET] for s in paired]
    gaps = [best[NET] - results[s][base][NET] for s in paired]
    cells = {
        name: list(mean_interval([scores[name] for scores in held.values()], 0.95, *LIMITS.get(name, ())))
        for name in TOLD
    }
    share = float(np.mean(gains) / np.mean(gaps)) if paired else float("nan")
    return {"arm": arm, "num_seeds": len(held), **cells, "gain": list(mean_interval(gains)), "gap_share": share}


def tell(cells: Mapping[str, object]) -> None:
    def interval(name: str, form: str) -> str:
        mean, low, high = cells[name]  # type: ignore[misc]
        return f"{mean:{form}} [{low:{form}}, {high:{form}}]"

    energy, mse = cells["energy_wh_per_unit"][0], cells["action_mse"][0]  # type: ignore[index]
    print(
        f"{cells['arm']:15s} {cells['num_seeds']:5d} {interval(NET, '.0f'):>20s} {interval('mpl', '.0f'):>20s} "
        f"{interval('error_rate', '.1%'):>20s} {energy:9.5f} {mse:11.3f} {interval('gain', '+.0f'):>30s} "
        f"{cells['gap_share']:8.0%}"
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--arms", nargs="+", default=list(HEADLINE), choices=list(ARMS))
    parser.add_argument("--together", type=int, default=2, help="seeds that train together: speed, not results")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so many")
    parser.add_argument("--policy", type=json.loads, default={}, help="JSON of settings of `policy` that differ")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    args.policy = PolicyConfig.model_validate(args.policy)
    return args


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    held = json.loads(args.out.read_text())["seeds"] if args.out and args.out.exists() else {}
    results, best = study(args, held), oracle(SEALED)
    rows = table(results, best)
    print(
        json.dumps(
            {
                "benchmark": "policy",
                "episodes": args.episodes,
                "seeds": sorted(results, key=int),
                "arms": rows,
                "oracle": best,
            }
        )
    )


if __name__ == "__main__":
    main()
