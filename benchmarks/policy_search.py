"""The search behind the policy table: as many settings for policies without synthetic data as for those with it.

    python benchmarks/policy_search.py --episodes 15 --group real_only --out docs/data/policy-search.json

Development seeds and evaluation episodes are never among those reported. What `--out` holds is not tried again.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from policy_material import DEVELOPMENT, Arm, train

from phaseb.config.policy import PolicyConfig

SEEDS = (100, 101)
REAL, ROLLOUTS = Arm("real"), Arm("rollouts")
Settings = Mapping[str, Any]


def sac(**offline: float) -> dict[str, Any]:
    """Soft actor-critic that weighs both sides of a switch."""
    return {
        "binary_actions": True,
        "offline": {"algorithm": "sac", "bc_fraction": 0.2, "critic_warmup_fraction": 0.1, **offline},
    }


def iql(expectile: float, temperature: float) -> dict[str, Any]:
    return {"offline": {"algorithm": "iql", "iql_expectile": expectile, "iql_beta": temperature}}


GROUPS: Mapping[str, Mapping[str, tuple[Arm, Settings]]] = {
    "real_only": {
        "IQL, expectile 0.7, temperature 3": (REAL, iql(0.7, 3)),
        "IQL, expectile 0.9, temperature 3": (REAL, iql(0.9, 3)),
        "IQL, expectile 0.8, temperature 6": (REAL, iql(0.8, 6)),
        "IQL, expectile 0.7, temperature 10": (REAL, iql(0.7, 10)),
        "IQL, expectile 0.7, temperature 20": (REAL, iql(0.7, 20)),
        "SAC + behaviour 10": (REAL, sac(bc_weight=10.0)),
        "SAC + behaviour 40": (REAL, sac(bc_weight=40.0)),
        "SAC-N, 8 critics": (REAL, sac(bc_weight=3.0) | {"num_critics": 8}),
        "EDAC, 5 critics, diversity 1": (REAL, sac(bc_weight=10.0, diversity_weight=1.0) | {"num_critics": 5}),
        "CQL 5 + behaviour 10": (REAL, sac(bc_weight=10.0, cql_weight=5.0)),
    },
    "trivial": {
        "noise 0.01": (Arm("noise", noise=0.01), {}),
        "noise 0.03": (Arm("noise", noise=0.03), {}),
        "noise 0.1": (Arm("noise", noise=0.1), {}),
        "mix": (Arm("mix"), {}),
        "mix, a quarter": (Arm("mix", share=0.25), {}),
    },
    "trust_weighted": {
        "defaults": (ROLLOUTS, {}),
        "half the doubt": (ROLLOUTS, {"augmentation": {"reward_pessimism": 0.5}}),
        "twice the doubt": (ROLLOUTS, {"augmentation": {"reward_pessimism": 2.0}}),
        "8 steps": (ROLLOUTS, {"augmentation": {"horizon": 8}}),
        "5 critics": (ROLLOUTS, {"following": {"num_critics": 5}}),
        "behaviour 1": (ROLLOUTS, {"following": {"bc_weight": 1.0}}),
        "three quarters of a batch": (Arm("rollouts", share=0.75), {}),
    },
}


def attempt(name: str, arm: Arm, settings: Settings, args: argparse.Namespace) -> dict[str, Any]:
    """One setting on all development seeds."""
    start = time.process_time()
    made = train(SEEDS, args.episodes, {"tried": arm}, PolicyConfig.model_validate(settings), DEVELOPMENT)
    scores = [made[str(seed)]["tried"] for seed in SEEDS]
    nets, errors = ([s[key] for s in scores] for key in ("net_value_per_hour", "error_rate"))
    print(
        f"{args.episodes} episodes, {name}: net {np.round(nets)} mean {np.mean(nets):.0f} $/h, errors "
        f"{np.round(errors, 3)}, {time.process_time() - start:.0f} s of one core",
        flush=True,
    )
    return {"episodes": args.episodes, "group": args.group, "name": name, "seeds": SEEDS, "net": nets, "errors": errors}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--group", choices=list(GROUPS), required=True)
    parser.add_argument("--names", nargs="+", help="of the settings; all of the group where absent")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    for name in args.names or GROUPS[args.group]:
        tried = json.loads(args.out.read_text()) if args.out.exists() else []
        if any(t["name"] == name and t["episodes"] == args.episodes for t in tried):
            continue
        tried.append(attempt(name, *GROUPS[args.group][name], args))
        args.out.write_text(json.dumps(tried, indent=1) + "\n")


if __name__ == "__main__":
    main()
