"""The table of a finished acceptance run: every arm, its paired difference from the baseline, and its share of the gap.

    phaseb run --config configs/acceptance.yaml
    python benchmarks/acceptance.py runs/acceptance [--baseline runs/edac] [--oracle 946] [--out FILE]

Differences are paired by policy seed. With `--baseline`, they are from the `real_only` of another run on the same
episodes and seeds. `--oracle` is in $/h, from benchmarks/oracle.py. Prints a table and one JSON line.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from phaseb.runtime.metrics import mean_interval

SHOWN = ("mpl", "error_rate", "energy_wh_per_unit", "action_mse")
VALUE = "net_value_per_hour"
Arms = dict[str, dict[str, dict[str, float]]]


def arms_of(run: Path) -> Arms:
    """Measures by arm and seed."""
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    return {arm: told["seeds"] for arm, told in summary["arms"].items()}


def row(arm: str, arms: Arms, baseline: dict[str, dict[str, float]], oracle: float) -> dict[str, Any]:
    """Means of an arm with their intervals, and its differences from the baseline, seed by seed."""
    if arms[arm].keys() != baseline.keys():
        raise SystemExit(f"{arm} has seeds {list(arms[arm])}, the baseline {list(baseline)}")
    told: dict[str, Any] = {name: mean_interval(seed[name] for seed in arms[arm].values()) for name in (VALUE, *SHOWN)}
    for name in (VALUE, *SHOWN):
        apart = [arms[arm][seed][name] - baseline[seed][name] for seed in baseline]
        told[f"{name}_difference"] = (*mean_interval(apart), sum(x > 0 for x in apart))
    told["share"] = told[f"{VALUE}_difference"][0] / (oracle - np.mean([seed[VALUE] for seed in baseline.values()]))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--baseline", type=Path, help="folder of another run, whose real_only is the baseline")
    parser.add_argument("--oracle", type=float, default=946.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    arms = arms_of(options.run)
    baseline = arms_of(options.baseline or options.run)["real_only"]
    rows = {arm: row(arm, arms, baseline, options.oracle) for arm in arms}
    print("| arm | net value, $/h | less the baseline | ahead | of the gap | MPL | errors | Wh a unit | action MSE |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for arm, told in rows.items():
        mean, low, high = told[VALUE]
        apart, least, most, ahead = told[f"{VALUE}_difference"]
        cells = [arm, f"{mean:.0f} [{low:.0f}, {high:.0f}]", f"{apart:+.0f} [{least:+.0f}, {most:+.0f}]"]
        cells += [f"{ahead} of {len(baseline)}", f"{told['share']:.0%}", *(f"{told[name][0]:.4g}" for name in SHOWN)]
        print("| " + " | ".join(cells) + " |")
    line = json.dumps({"run": options.run.name, "seeds": arms, "baseline": baseline, "rows": rows})
    print(line)
    if options.out:
        options.out.write_text(line + "\n")


if __name__ == "__main__":
    main()
