"""ALOHA's transfer of a cube: chunks of actions cloned from 50 recorded episodes, measured in gym-aloha's simulator.

    MUJOCO_GL=egl python benchmarks/aloha_episodes.py --out transfers.hdf5
    MUJOCO_GL=egl python benchmarks/aloha.py transfers.hdf5 --observation state --out docs/data/aloha.jsonl

A whole `phaseb run` in an environment that holds phaseb and gym-aloha. Policies see `state` (joints and the cube's
pose), `both` (joints and two cameras) or `frames` (the cameras alone). What no policy depends on is small: rollouts,
gate and judges, since no arm draws rollouts.
KEY.PATH=VALUE words come last and win.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from aloha_environment import CAMERAS, HZ, MAX_REWARD, SIDE, STATE_NAMES
from arena import QUICK
from json_rows import add_row
from numpy.typing import NDArray
from processor_time import ProcessorTime

from phaseb.episodes.control import read_control
from phaseb.episodes.shards import iter_episodes
from phaseb.latents.model import EncoderModel
from phaseb.latents.relevance import smooth_functions
from phaseb.runtime.metrics import read_metrics
from phaseb.runtime.storage import Store

HERE = Path(__file__).parent
CONTROL_HZ, DECISIONS, CHUNK = 12.5, 100, 8
ARMS = {"behaviour_cloning": "bc", "act": "act", "flow": "flow"}
"""The arms and their learners."""
IMAGES = ",".join(f"obs/{name}" for name in CAMERAS)


def settings(path: Path, observation: str, arms: Sequence[str], run: Path, seed: int) -> list[str]:
    """The words of a run."""
    unused = [word for word in QUICK if not word.startswith(("policy.", "evaluation.", "latents."))]
    shown = STATE_NAMES if observation == "state" else STATE_NAMES[:1]
    columns = ",".join(f"obs/{name}" for name, _ in shown)
    given = ["episodes.source=hdf5", f"episodes.path={path}", f"episodes.columns.observation=[{columns}]"]
    given += [f"episodes.columns.step_s={1 / HZ}", f"episodes.control_hz={CONTROL_HZ}"]
    if observation != "state":
        given += [f"episodes.columns.images=[{IMAGES}]", f"episodes.columns.image_size={SIDE}"]
    given += ["episodes.dev_fraction=0.06", "episodes.test_fraction=0.08"]
    given += ["environment.id=aloha_environment:TransferCubes", f"environment.max_steps={DECISIONS}"]
    given += [f"environment.observation={'state' if observation == 'state' else 'both'}"]
    given += [f"latents.observation={observation}", f"policy.chunk_steps={CHUNK}", "evaluation.num_episodes=50"]
    given += [f"arms.names=[{','.join(arms)}]", *(f"arms.{arm}.learner={ARMS[arm]}" for arm in arms)]
    return [*unused, *given, "arms.num_seeds=1", f"run.seed={seed}", f"run.dir={run}", "run.on_change=redo"]


def interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, p = 1.96, successes / trials
    middle, half = p + z * z / (2 * trials), z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    return round((middle - half) / (1 + z * z / trials), 3), round((middle + half) / (1 + z * z / trials), 3)


def outcomes(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """What the evaluation episodes of a policy came to.

    `stages` counts episodes by gym-aloha's highest reward, 0 to 4. `decisions_to_success` is least, median and most: a
    success within a second is a blow of the left gripper to the cube, which gym-aloha counts.
    """
    stages = [int(row["stage"]) for row in rows]
    successes = stages.count(MAX_REWARD)
    steps = [row["steps"] for row in rows if row["stage"] == MAX_REWARD]
    told = {"successes": successes, "episodes": len(rows), "interval": interval(successes, len(rows))}
    return told | {
        "stages": [stages.count(stage) for stage in range(MAX_REWARD + 1)],
        "decisions_to_success": [min(steps), float(np.median(steps)), max(steps)] if steps else None,
    }


def cube_error_mm(run: Store, recorded: Path) -> dict[str, float]:
    """How far a smooth reader of the latents is from the cube's true place, mm: root mean square by axis.

    It is linear in latents and random Fourier features of them, fitted to training episodes and read on all others.
    `cube_start_mm` is of their first step, x and y.
    """
    bundle, control = EncoderModel.load(run.folder("encoder")), read_control(run)
    latents: dict[bool, list[NDArray[Any]]] = {True: [], False: []}
    places: dict[bool, list[NDArray[Any]]] = {True: [], False: []}
    with h5py.File(recorded) as file:
        for episode in iter_episodes(run.folder("episodes")):
            z, cube = bundle.encode_episode(episode), file[f"data/{episode.id}/obs/cube"][:, :3]
            seen = np.minimum(np.arange(len(z)) * (control.rows if control else 1), len(cube) - 1)
            is_train = episode.split == "train"
            latents[is_train].append(_readable(z))
            places[is_train].append(1e3 * cube[seen])
    known = np.concatenate(latents[True])
    ridge = known.T @ known + 1e-3 * np.eye(known.shape[1])
    reader = np.linalg.solve(ridge, known.T @ np.concatenate(places[True]))
    errors = [z @ reader - place for z, place in zip(latents[False], places[False], strict=True)]
    starts = np.stack([error[0] for error in errors])
    of_all, of_starts = (float(np.sqrt(np.square(rows).mean())) for rows in (np.concatenate(errors), starts[:, :2]))
    return {"num_latents": bundle.num_dims, "cube_mm": round(of_all, 2), "cube_start_mm": round(of_starts, 2)}


def _readable(z: NDArray[np.float32]) -> NDArray[Any]:
    """(M, ·) latents (M, D), smooth functions of them, and 1."""
    rows = torch.from_numpy(z).double()
    return torch.cat([rows, smooth_functions(rows, 400, seed=0), torch.ones_like(rows[:, :1])], dim=1).numpy()


def make_row(run: Store, recorded: Path, observation: str) -> dict[str, Any]:
    """The result of a finished run."""
    results = run.read_json("results.json")
    counts = results["stages"]["collect"]["metrics"]
    row = {"benchmark": "aloha", "observation": observation, "seed": results["seed"], "version": results["version"]}
    row |= {name: counts[name] for name in ("num_train", "num_dev", "num_test")} | cube_error_mm(run, recorded)
    row["arms"] = {}
    for arm in results["arms"]:
        rows = read_metrics(run.folder("evaluation", arm, "0"), "episodes.parquet")
        error = round(results["arms"][arm]["action_mse"]["mean"], 5)  # on held-out episodes, of actions in [-1, 1]
        row["arms"][arm] = {"learner": ARMS[arm], "action_mse": error, **outcomes(rows)}
    row["stage_s"] = {name: round(stage["seconds"], 1) for name, stage in results["stages"].items()}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("episodes", type=Path, help="what aloha_episodes.py wrote")
    parser.add_argument("words", nargs="*", metavar="KEY.PATH=VALUE")
    parser.add_argument("--observation", choices=("state", "both", "frames"), default="state")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", type=Path, default=Path("runs/aloha"), help="folder of the run directories")
    parser.add_argument("--out", type=Path)
    options = parser.parse_intermixed_args()
    run = options.dir / f"{options.observation}-{options.seed}"
    run.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    given = options.episodes.resolve(), options.observation, options.arms, run / "run", options.seed
    words = settings(*given) + options.words
    began = time.monotonic()
    with (run / "log.txt").open("a") as log:
        command = [sys.executable, "-m", "phaseb.cli", "run", *words]
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=subprocess.STDOUT)
        with ProcessorTime(process.pid) as spent:
            code = process.wait()
    if code:
        raise SystemExit(f"exit code {code}: {(run / 'log.txt').read_text()[-2000:]}")
    row = make_row(Store.at(str(run / "run")), options.episodes, options.observation)
    row |= {"core_minutes": round(spent.seconds / 60, 2), "minutes": round((time.monotonic() - began) / 60, 2)}
    row |= {"words": options.words}
    print(json.dumps(row))
    if options.out:
        add_row(options.out, row)


if __name__ == "__main__":
    main()
