"""How exact must a model be before judges cannot tell it from the cell, if it reads recorded actions one by one?

    OMP_NUM_THREADS=1 python benchmarks/disturbance.py [--seed 11] [--episodes 200]

The model here is the cell's own physics, disturbed: at the start, or at every step, position and velocity are moved by
a share of the spread that they have over the episodes. The recorded actions of the undisturbed episodes drive it.
Prints the worst of three judges on 60 steps and the error of the last; the last line is JSON.
"""

import argparse
import json

import numpy as np
from numpy.typing import NDArray

from phaseb.config.data import EnvironmentConfig
from phaseb.config.trust import JudgeConfig
from phaseb.dynamics.statistics import open_loop_rmse
from phaseb.episodes.episode import Episode
from phaseb.trust.two_sample import judge
from phaseb.workcell.batch import BatchedCell
from phaseb.workcell.collect import collect_episodes
from phaseb.workcell.sensors import STATE_NAMES

DISTURBANCES = ((0.0, 0.0), (0.02, 0.0), (0.01, 0.01), (0.03, 0.03))  # at the start, at every later step
POSITION = [STATE_NAMES.index(name) for name in ("cart_position_m", "swing_rad")]
VELOCITY = [STATE_NAMES.index(name) for name in ("cart_speed_m_s", "swing_rate_rad_s")]


def disturbed(episodes: list[Episode], start: float, each: float, spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """States (N, T+1, S) of the physics under recorded actions, disturbed, its sensor noise redrawn."""
    generator, actions = np.random.default_rng(0), np.stack([e.actions for e in episodes])
    count, steps = actions.shape[:2]
    seeds = [int(e.tags["seed"]) for e in episodes]
    cell = BatchedCell(count, "state", steps)
    seen = [cell.reset(seeds, [seed + 1 for seed in seeds])["state"]]
    for t in range(steps):
        share, cranes = each if t else start, cell._cranes
        cranes.position = cranes.position + share * spread[POSITION] * generator.standard_normal((count, 2))
        cranes.velocity = cranes.velocity + share * spread[VELOCITY] * generator.standard_normal((count, 2))
        seen.append(cell.step(actions[:, t])[0]["state"])
    return np.stack(seen, axis=1).astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--episodes", type=int, default=200)
    options = parser.parse_args()
    environment = EnvironmentConfig(observation="state")
    episodes = collect_episodes(environment, options.seed, range(50, 50 + options.episodes))
    real = np.stack([e.state for e in episodes]).astype(np.float64)
    actions = np.stack([e.actions for e in episodes])
    mean, spread = real.mean((0, 1)), real.std((0, 1))
    config, rows = JudgeConfig(sigmas=(0.0, 0.2)), []
    for start, each in DISTURBANCES:
        made = disturbed(episodes, start, each, spread)
        made[:, 0] = real[:, 0]
        one, other = (((z - mean) / spread).astype(np.float32) for z in (real, made))
        found = judge(one, other, actions, config, options.seed)
        row = {"start": start, "each_step": each, "rmse_end": float(open_loop_rmse(one[:, 1:], other[:, 1:])[-1])}
        row |= {f"judge_{sigma}": found.worst(sigma).auc for sigma in config.sigmas}
        rows.append(row)
        print("  ".join(f"{name} {value:.3f}" for name, value in row.items()), flush=True)
    print(json.dumps({"benchmark": "disturbance", "seed": options.seed, "rows": rows}))


if __name__ == "__main__":
    main()
