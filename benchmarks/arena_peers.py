"""Peers of the arena: learners of d3rlpy on the training episodes of a run, played on the same evaluation episodes.

    python -m venv PEERS && PEERS/bin/pip install d3rlpy mujoco imageio
    PHASEB_ARENA=FOLDER PEERS/bin/python benchmarks/arena_peers.py --dir runs/arena --tasks dmsd-50 --seeds 0

d3rlpy is no dependency of phaseb: run this in an environment of its own. `benchmarks/arena.py` has left the episodes
of each run in `--dir`. Settings are d3rlpy's defaults with states standardised; the last policy plays. Each peer adds
a row beside phaseb's; a row that exists is not made again.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import d3rlpy
import gymnasium
import numpy as np
from arena_tasks import FIRST_SEED, TASKS, Task, make_world
from json_rows import add_row, read_rows

ROWS = Path(__file__).parents[1] / "docs" / "data" / "arena.jsonl"
SEED_MASK = 0x7FFFFFFF
PEERS = {
    "BC": d3rlpy.algos.BCConfig,
    "IQL": d3rlpy.algos.IQLConfig,
    "TD3+BC": d3rlpy.algos.TD3PlusBCConfig,
    "CQL": d3rlpy.algos.CQLConfig,
    "ReBRAC": d3rlpy.algos.ReBRACConfig,
}


def learn(peer: str, path: Path, steps: int, seed: int) -> Any:
    """Train a peer on a file of flat arrays; actions are clipped to what a policy can take."""
    d3rlpy.seed(seed)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["actions"] = np.clip(arrays["actions"], -1, 1)
    data = d3rlpy.dataset.MDPDataset(**arrays)
    config = PEERS[peer](observation_scaler=d3rlpy.preprocessing.StandardObservationScaler())
    algorithm = config.create(device=False)
    algorithm.fit(
        data,
        n_steps=steps,
        n_steps_per_epoch=steps,
        show_progress=False,
        save_interval=steps,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
    )
    return algorithm


def play(algorithm: Any, task: Task, count: int) -> list[float]:
    """Scores of a policy in `count` episodes, side by side, from the seeds that phaseb evaluates on."""
    worlds = [make_world(task) for _ in range(count)]
    seen = [world.reset(seed=(FIRST_SEED + i) & SEED_MASK)[0] for i, world in enumerate(worlds)]
    returns, running = np.zeros(count), np.ones(count, bool)
    for step in range(task.max_steps):
        actions = algorithm.predict(np.stack(seen).astype(np.float32))
        for i in np.flatnonzero(running):
            space = worlds[i].action_space
            assert isinstance(space, gymnasium.spaces.Box)
            action = np.clip(actions[i], space.low, space.high).astype(space.dtype)
            seen[i], reward, terminated, truncated, _ = worlds[i].step(action)
            returns[i] += float(reward)
            running[i] = not (terminated or truncated or step + 1 == task.max_steps)
        if not running.any():
            break
    for world in worlds:
        world.close()
    return np.round(task.score(returns), 2).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("runs/arena"), help="folder of the runs of arena.py")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), required=True, metavar="TASK")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=["BC", "IQL", "TD3+BC"], metavar="PEER")
    parser.add_argument("--steps", type=int, default=10_000, help="updates of 256 rows")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--out", type=Path, default=ROWS)
    options = parser.parse_args()
    done = {(row["task"], row["seed"], row["peer"]) for row in read_rows(options.out) if "peer" in row}
    for name in options.tasks:
        for seed in options.seeds:
            path = options.dir / f"{name}-{seed}" / "train.npz"
            for peer in (peer for peer in options.peers if (name, seed, peer) not in done):
                started = time.process_time()
                scores = play(learn(peer, path, options.steps, seed), TASKS[name], options.episodes)
                minutes = round((time.process_time() - started) / 60, 2)
                row = {
                    "task": name,
                    "seed": seed,
                    "peer": peer,
                    "steps": options.steps,
                    "scores": scores,
                    "core_minutes": minutes,
                }
                add_row(options.out, row)
                print(f"{name} seed {seed} {peer}: {np.mean(scores):.1f} ({minutes} core-minutes)", flush=True)


if __name__ == "__main__":
    main()
