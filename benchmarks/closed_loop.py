"""Every generator as policies use it, against physics, and whether the one that was chosen is physics' better one.

    python benchmarks/closed_loop.py --config configs/demo.yaml --seeds 0 1 2 --out closed-loop.json
    python benchmarks/closed_loop.py --seeds 0 --out closed-loop.json episodes.num_train=15

Each seed is a run of its own, which redraws data and models; words at the end are settings. A row is a generator of a
seed: judges (the worst over arms, at the whole horizon), return bias, ranking, branch tests. `better` says whether the
generator has the smaller branch error under the arms' own policies, mean of latents and rewards, in physics. Rows that
`--out` already holds are not made again.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import phaseb

COLUMNS = ("auc", "auc_noise", "return_bias", "pearson", "spearman", "mmrv", "nrmse", "reward_nrmse", "coverage_90")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """A row for each generator of a finished run."""
    found = json.loads((folder / "closed_loop.json").read_text())
    choice = folder / "dynamics" / "chosen.json"
    served = json.loads(choice.read_text())["generator"] if choice.exists() else None
    rows = []
    for name, one in found["generators"].items():
        if "failed" in one:
            rows.append({"generator": name, "chosen": name == served, "failed": one["failed"]})
            continue
        last = [judged[str(found["horizon"])] for judged in one["judges"].values()]
        first, *_, noise = [*last[0], *last[0]]
        policy = one["branches"]["policy"]
        numbers = {
            "auc": max(level[first]["auc"] for level in last),
            "auc_noise": max(level[noise]["auc"] for level in last),
            "return_bias": one["return_bias"],
            **{key: one["ranking"][key] for key in ("pearson", "spearman", "mmrv")},
            **{key: policy[key][-1] for key in ("nrmse", "reward_nrmse", "coverage_90")},
        }
        rows.append({"generator": name, "chosen": name == served, **numbers})
    errors = {row["generator"]: row["nrmse"] + row["reward_nrmse"] for row in rows if "failed" not in row}
    best = min(errors, key=lambda name: errors[name], default=None)
    return [row | {"better": row["generator"] == best} for row in rows]


def show(rows: list[dict[str, Any]]) -> None:
    """Means over seeds by generator, and how often the chosen one is the better one."""
    print(f"{'generator':12s}{'seeds':>6s}" + "".join(f"{name:>14s}" for name in COLUMNS))
    for name in dict.fromkeys(row["generator"] for row in rows):
        own = [row for row in rows if row["generator"] == name and "failed" not in row]
        values = "".join(f"{np.nanmean([row[key] for row in own]):14.3f}" for key in COLUMNS) if own else ""
        print(f"{name:12s}{len(own):6d}{values}")
    chosen = [row for row in rows if row["chosen"]]
    right = sum(row["better"] for row in chosen)
    print(f"the chosen generator is physics' better one in {right} of {len(chosen)} seeds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path(tempfile.gettempdir()) / "phaseb-closed-loop")
    args, words = parser.parse_known_args()
    rows: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.exists() else []
    for seed in args.seeds:
        if any(row["seed"] == seed for row in rows):
            continue
        folder = args.runs / str(seed)
        phaseb.run(args.config, f"run.seed={seed}", f"run.dir={folder}", *words)
        rows += [{"seed": seed, **row} for row in rows_of(folder)]
        args.out.write_text(json.dumps(rows, indent=1))
    show(rows)
    print(json.dumps({"benchmark": "closed_loop", "rows": rows}))


if __name__ == "__main__":
    main()
