"""Is the recommendation worth following? Collect from recommended and from random starts, and compare what is learned.

    python benchmarks/worth.py --config configs/flywheel.yaml --dir /tmp/worth --seeds 0 1 2

For each seed a flywheel of one generation is turned, then a second generation from the same first one, once with
flywheel.choose=random and once with recommended. Beside both: the rank correlation of the estimate with leaving bricks
out (`phaseb worth`). Prints a table and one JSON line. What is done is not done again. KEY.PATH=VALUE words come first.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from phaseb.config.load import load_config
from phaseb.flywheel.loop import run
from phaseb.pipeline.run_directory import RunDirectory
from phaseb.runtime.metrics import mean_interval
from phaseb.runtime.storage import Store
from phaseb.stages.run import run_job

HOW = ("random", "recommended")
MEASURES = ("net_value_per_hour", "mpl", "error_rate")


def second_generation(config: str, folder: Path, seed: int, how: str, words: list[str]) -> dict[str, Any]:
    """What the policy of a second generation earns, and how far its world model is off on the sealed test."""
    first, root = folder / f"{seed}-first", folder / f"{seed}-{how}"
    own = [f"run.seed={seed}", "flywheel.patience=9", *words]
    if not root.exists():
        run(load_config(config, [*own, f"run.dir={first}", "flywheel.max_generations=1"]))
        part = root.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(first, part)
        part.rename(root)
    told = run(load_config(config, [*own, f"run.dir={root}", "flywheel.max_generations=2", f"flywheel.choose={how}"]))
    last = told.metrics["generations"][-1]
    if last["state"] != "done":
        raise SystemExit(f"seed {seed}, {how}: {last['reason']}")
    numbers = Store.at(root / "generations" / "001").read_json("judges.json")["gru"]["numbers"]
    return {name: last["metrics"][name]["mean"] for name in MEASURES} | {"rmse": numbers["rmse"]}


def correlation(config: str, folder: Path, seed: int, words: list[str]) -> float:
    """Of the estimate with leaving bricks out, in the first generation."""
    store = Store.at(folder / f"{seed}-loo")
    if not store.exists("run.json"):
        shutil.copytree(folder / f"{seed}-first" / "generations" / "000", folder / f"{seed}-loo")
    kept = load_config(
        RunDirectory(store).store.path("config.yaml"),
        [
            f"run.dir={store.root}",
            "worth.method=leave_out",
            "run.on_change=redo",
            *words,
        ],
    )
    value = run_job("worth", kept).metrics["rank_correlation"]
    return float("nan") if value is None else float(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/flywheel.yaml")
    parser.add_argument("--dir", type=Path, default=Path("runs/worth"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("words", nargs="*", metavar="KEY.PATH=VALUE")
    given = parser.parse_args()
    args = (given.config, given.dir)
    rows = {how: [second_generation(*args, s, how, given.words) for s in given.seeds] for how in HOW}
    ranks = [correlation(*args, s, given.words) for s in given.seeds]
    table: dict[str, Any] = {}
    for name in (*MEASURES, "rmse"):
        pairs = [(a[name], b[name]) for a, b in zip(*rows.values(), strict=True)]
        known = np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2)
        table[name] = {
            "random": known[:, 0].tolist(),
            "recommended": known[:, 1].tolist(),
            "difference": mean_interval((known[:, 1] - known[:, 0]).tolist()),
        }
        random, recommended = known.mean(0)
        mean, low, high = table[name]["difference"]
        print(f"{name:<20} {random:9.3f} random, {recommended:9.3f} recommended, {mean:+.3f} [{low:.3f}, {high:.3f}]")
    print(f"rank correlation of the estimate with leaving bricks out: {[round(r, 2) for r in ranks]}")
    print(json.dumps({"seeds": given.seeds, "measures": table, "rank_correlation": ranks}))


if __name__ == "__main__":
    main()
