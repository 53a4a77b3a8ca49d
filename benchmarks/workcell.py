"""How fast does the built-in cell step, on one core, with and without its camera?

    OMP_NUM_THREADS=1 python benchmarks/workcell.py

Prints control steps a second of processor time, and one JSON line.
"""

import json
import time

import numpy as np

from phaseb.workcell import BatchedCell


def rate(observation: str, num_envs: int, seconds: float = 3.0) -> float:
    cell = BatchedCell(num_envs, observation)  # type: ignore[arg-type]
    actions = np.random.default_rng(0).uniform(-1, 1, (60, num_envs, 2))
    start, steps = time.process_time(), 0
    while time.process_time() - start < seconds:
        cell.reset(range(num_envs))
        for action in actions:
            cell.step(action)
        steps += 60 * num_envs
    return steps / (time.process_time() - start)


def main() -> None:
    rows = []
    print(f"{'observation':14}{'cells':>8}{'steps/s':>12}")
    for observation in ("state", "both"):
        for num_envs in (1, 8, 64, 256):
            rows.append({"observation": observation, "num_envs": num_envs, "steps_per_s": rate(observation, num_envs)})
            print(f"{observation:14}{num_envs:8}{rows[-1]['steps_per_s']:12,.0f}")
    print(json.dumps({"benchmark": "workcell", "rows": rows}))


if __name__ == "__main__":
    main()
