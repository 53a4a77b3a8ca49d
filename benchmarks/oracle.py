"""How good can a controller be at the built-in cell, and how does an operator compare?

    python benchmarks/oracle.py                    the committed oracle and the operators, on episodes never searched on
    python benchmarks/oracle.py --search 30        search gains anew, 30 generations of 64 in the true physics (minutes)

Prints a table and one JSON line.
"""

import argparse
import json

import numpy as np

from phaseb.config.data import EnvironmentConfig, ValuationConfig
from phaseb.episodes.environment import record
from phaseb.runtime.seeding import derive_seed
from phaseb.workcell import BatchedCell
from phaseb.workcell.collect import collect_episodes
from phaseb.workcell.operators import KINDS
from phaseb.workcell.oracle import GAINS, REACH_M, Oracle
from phaseb.workcell.physics import CellParameters

NUM_SEARCHED, POPULATION = 32, 64


def economics(gains: np.ndarray, reach_m: float, seeds: list[int]) -> dict[str, float]:
    cell = BatchedCell(len(seeds), "state", config=CellParameters(sensor_noise=0))
    record(cell, Oracle(cell, gains, reach_m), seeds, [str(s) for s in seeds])
    return totals(cell.economics())


def totals(columns: dict[str, np.ndarray]) -> dict[str, float]:
    good, errors = columns["good_units"].sum(), columns["errors"].sum()
    hours, energy_wh, prices = columns["duration_h"].sum(), columns["energy_wh"].sum(), ValuationConfig()
    value = good * prices.price_per_unit - errors * prices.cost_per_error - energy_wh / 1000 * prices.price_per_kwh
    return {
        "episodes": len(columns["good_units"]),
        "mpl": good / hours,
        "error_rate": errors / (good + errors) if good + errors else float("nan"),
        "energy_wh_per_unit": energy_wh / good if good else float("nan"),
        "net_value_per_hour": value / hours,
        "return": float(np.nanmean(columns["return"])) if "return" in columns else float("nan"),
    }


def search(num_generations: int, seed: int) -> tuple[np.ndarray, float]:
    """Random search by the cross-entropy method: each generation draws around the best eighth of the last one.

    The mean return over the same 32 episodes decides; the result follows from (num_generations, seed).
    """
    generator = np.random.default_rng(seed)
    seeds = [derive_seed(seed, "searched", i) for i in range(NUM_SEARCHED)]
    mean = np.array([0.8, 0.8, 0.5, 0.0, 0.8, 0.8, 0.5, 0.0, 0, 0, 0, 0, 1.5])
    spread = np.array([0.6, 0.4, 1.0, 0.4, 0.6, 0.4, 1.0, 0.4, 0.5, 0.4, 0.8, 0.4, 0.5])
    best, best_return = mean, -np.inf
    for generation in range(num_generations):
        drawn = mean + spread * generator.standard_normal((POPULATION, 13))
        drawn[0] = mean
        found = [economics(one[:12].reshape(3, 4), one[12], seeds) for one in drawn]
        order = np.argsort([-f["return"] for f in found])
        if found[order[0]]["return"] > best_return:
            best, best_return = drawn[order[0]], found[order[0]]["return"]
        elite = drawn[order[: POPULATION // 8]]
        mean, spread = elite.mean(axis=0), 0.3 * spread + 0.7 * elite.std(axis=0)
        print(f"generation {generation}: best return {best_return:.3f}, MPL {found[order[0]]['mpl']:.0f}", flush=True)
    print(np.array2string(best[:12].reshape(3, 4), separator=", ", precision=4), f"reach_m={best[12]:.4f}")
    return best[:12].reshape(3, 4), float(best[12])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", type=int, metavar="GENERATIONS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=512)
    arguments = parser.parse_args()
    gains, reach_m = search(arguments.search, arguments.seed) if arguments.search else (GAINS, REACH_M)
    unseen = [derive_seed(arguments.seed, "unseen", i) for i in range(arguments.episodes)]
    rows = {"oracle": economics(gains, reach_m, unseen)}
    recorded = collect_episodes(EnvironmentConfig(observation="state"), arguments.seed, range(arguments.episodes))
    for kind in ("all operators", *KINDS):
        chosen = [e for e in recorded if kind in ("all operators", e.tags["operator"])]
        columns = {name: np.array([e.metrics[name] for e in chosen]) for name in chosen[0].metrics}
        columns["return"] = np.array([e.rewards.sum() for e in chosen])
        rows[kind] = totals(columns)
    print(f"{'':14}" + "".join(f"{name:>20}" for name in rows["oracle"]))
    for kind, row in rows.items():
        print(f"{kind:14}" + "".join(f"{value:20.4g}" for value in row.values()))
    print(json.dumps({"benchmark": "oracle", "rows": rows}))


if __name__ == "__main__":
    main()
