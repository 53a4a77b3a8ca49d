"""A clone of Reacher-v5 by what it sees: the full state, the joints, or the joints and a camera.

    MUJOCO_GL=egl python benchmarks/reacher_camera.py --out reacher.jsonl

A script reaches for the target in 60 noisy episodes of 50 steps, of which 50 train. The camera alone shows the target:
policies that see `state` are blind to it. Actions are torques, so a clone that errs leaves the recorded states.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from arena import QUICK
from gymnasium import spaces
from json_rows import add_row
from numpy.typing import NDArray

from phaseb.latents.model import EncoderModel
from phaseb.runtime.storage import Store

HERE = Path(__file__).parent
EPISODES, STEPS, SIDE, NOISE = 60, 50, 64, 0.1
JOINTS, TARGET = [0, 1, 2, 3, 6, 7], slice(4, 6)
LINKS_M = (0.1, 0.11)
SEEN = {"full": "FullState", "state": "Camera", "both": "Camera"}


class Camera(gymnasium.Env[Any, Any]):
    """Reacher-v5 that shows its joints (6,) and a picture."""

    def __init__(self) -> None:
        self._env = gymnasium.make("Reacher-v5", render_mode="rgb_array", width=SIDE, height=SIDE)
        self.action_space = self._env.action_space
        joints = spaces.Box(-np.inf, np.inf, (len(JOINTS),), np.float64)
        self.observation_space = spaces.Dict({"state": joints, "frames": spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)})
        self.whole = np.zeros(10)

    def _seen(self, whole: NDArray[np.float64]) -> Any:
        self.whole = whole
        return {"state": whole[JOINTS], "frames": self._env.render()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        whole, info = self._env.reset(seed=seed)
        return self._seen(whole), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        whole, reward, terminated, truncated, info = self._env.step(action)
        return self._seen(whole), float(reward), terminated, truncated, info


class FullState(Camera):
    """Reacher-v5 that shows its joints and the target (8,)."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(-np.inf, np.inf, (len(JOINTS) + 2,), np.float64)

    def _seen(self, whole: NDArray[np.float64]) -> Any:
        self.whole = whole
        return np.concatenate([whole[JOINTS], whole[TARGET]])


def reach(whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Torques (2,) towards the joints that touch the target."""
    angles, (x, y), speeds = np.arctan2(whole[2:4], whole[:2]), whole[TARGET], whole[6:8]
    upper, lower = LINKS_M
    elbow = np.arccos(np.clip((x * x + y * y - upper**2 - lower**2) / (2 * upper * lower), -1, 1))
    shoulder = np.arctan2(y, x) - np.arctan2(lower * np.sin(elbow), upper + lower * np.cos(elbow))
    error = (np.array([shoulder, elbow]) - angles + np.pi) % (2 * np.pi) - np.pi
    return np.asarray(np.clip(np.array([0.8, 0.4]) * error - np.array([0.12, 0.05]) * speeds, -1, 1))


def record(path: Path) -> dict[str, Path]:
    """Write the episodes with and without the target among the states; returns the files by what policies see."""
    env, rng = Camera(), np.random.default_rng(0)
    columns: dict[str, list[Any]] = {name: [] for name in ("state", "target", "frames", "actions", "rewards")}
    for seed in range(EPISODES):
        observation, _ = env.reset(seed=seed)
        episode: dict[str, list[Any]] = {name: [] for name in columns}
        for step in range(STEPS + 1):
            seen = {"state": observation["state"], "target": env.whole[TARGET], "frames": observation["frames"]}
            if step < STEPS:
                action = np.clip(reach(env.whole) + NOISE * rng.standard_normal(2), -1, 1)
                observation, reward, *_ = env.step(action)
                seen |= {"actions": action, "rewards": reward}
            for name, value in seen.items():
                episode[name].append(value)
        for name, rows in episode.items():
            columns[name].append(np.asarray(rows, np.uint8 if name == "frames" else np.float32))
    arrays = {name: np.stack(rows) for name, rows in columns.items()}
    done = {"actions": arrays["actions"], "rewards": arrays["rewards"]}
    np.savez(path / "camera.npz", observations=arrays["state"], frames=arrays["frames"], **done)
    np.savez(path / "full.npz", observations=np.concatenate([arrays["state"], arrays["target"]], axis=2), **done)
    return {seen: path / ("full.npz" if seen == "full" else "camera.npz") for seen in SEEN}


def run(seen: str, episodes: Path, folder: Path, seed: int) -> dict[str, Any]:
    """The return of a clone in a whole run."""
    home = folder / f"{seen}-{seed}"
    words = [word for word in QUICK if not word.startswith(("policy.", "evaluation.", "latents."))]
    words += ["episodes.source=npz", f"episodes.path={episodes}", "episodes.dev_fraction=0.06"]
    words += ["episodes.test_fraction=0.1", f"environment.id=reacher_camera:{SEEN[seen]}"]
    words += [f"environment.max_steps={STEPS}", f"latents.observation={'both' if seen == 'both' else 'state'}"]
    words += ["arms.names=[behaviour_cloning]", "arms.num_seeds=1", "evaluation.num_episodes=50"]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "phaseb.cli", "run", *words, f"run.seed={seed}", f"run.dir={home}"]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=True, stdout=sys.stderr)
    store = Store.at(str(home))
    clone = store.read_json("results.json")["arms"]["behaviour_cloning"]
    told = {"seen": seen, "seed": seed, "num_latents": EncoderModel.load(store.folder("encoder")).num_dims}
    return told | {name: round(clone[name]["mean"], 3) for name in ("return", "action_mse")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = record(Path(folder))
        for seed in options.seeds:
            for seen, path in files.items():
                row = run(seen, path, Path(folder), seed)
                print(json.dumps(row))
                if options.out:
                    add_row(options.out, row)


if __name__ == "__main__":
    main()
