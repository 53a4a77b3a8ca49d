"""`phaseb inspect`: its processor time, the planted faults that it finds, and its false alarms on clean sets.

    python benchmarks/inspection.py [--episodes 200] [--steps 500] [--cameras 2] [SET.npz ...] [--seeds 0 1 2]

Faults are planted one at a time into one episode of the simulated arm (tests/faulty_recordings.py), under each seed,
and into one episode of every set that is named. A set that is named counts as clean. An alarm is an error or a warning.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from faulty_recordings import IN_ONE, arm_episodes, moving_frames, write_npz, write_video
from lerobot_writer import write_lerobot

from phaseb.config.load import load_config
from phaseb.episodes.formats.npz import read_npz
from phaseb.episodes.sources import recognise
from phaseb.inspection.inspection import Inspection, inspect

Arrays = dict[str, np.ndarray]
WIDTH, HEIGHT, FPS = 640, 480, 50


def look(path: Path) -> Inspection:
    source, place = recognise(str(path))
    return inspect(load_config(None, [f"episodes.source={source}", f"episodes.path={place}", "environment.id=none"]))


def alarms(found: Inspection) -> list[str]:
    return [f"{one.kind}: {one}" for one in found.findings if one.severity != "note"]


def has(found: Inspection, kind: str) -> bool:
    return any(one.kind == kind for one in found.findings)


def time_without_cameras(folder: Path, episodes: int, steps: int) -> float:
    path = write_npz(folder / "long.npz", arm_episodes(episodes, steps))
    start = time.process_time()
    look(path)
    return time.process_time() - start


def time_with_cameras(folder: Path, episodes: int, steps: int, cameras: int) -> float:
    """Videos of one camera are written once; all episodes show the same ones under names of their own."""
    rows = [
        {"observation.state": e["state"][:-1], "action": e["action"], "next.reward": e["reward"]}
        for e in arm_episodes(episodes, steps)
    ]
    root = write_lerobot(folder / "filmed", rows, FPS, video_path="videos/{video_key}/episode_{episode_index:06d}.mp4")
    info = json.loads((root / "meta" / "info.json").read_text())
    video = folder / "camera.mp4"
    write_video(video, moving_frames(steps, 0, HEIGHT, WIDTH), FPS)
    for camera in range(cameras):
        info["features"][f"observation.images.cam{camera}"] = {"dtype": "video", "shape": [HEIGHT, WIDTH, 3]}
        for i in range(episodes):
            target = root / "videos" / f"observation.images.cam{camera}" / f"episode_{i:06d}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(video)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    start = time.process_time()
    look(root)
    return time.process_time() - start


def planted(folder: Path, seeds: list[int]) -> dict[str, int]:
    """By fault, in how many seeds it was found as what it is, in its episode."""
    found: dict[str, int] = defaultdict(int)
    for seed in seeds:
        for name, (kind, plant) in IN_ONE.items():
            episodes = arm_episodes(seed=seed)
            plant(episodes[7])
            seen = look(write_npz(folder / "arm.npz", episodes))
            found[name] += any(one.kind == kind and "arm-000007" in one.episodes for one in seen.findings)
        episodes = arm_episodes(seed=seed)
        episodes[3] = episodes[11]
        found["duplicate"] += has(look(write_npz(folder / "arm.npz", episodes)), "duplicate")
        for one in episodes:
            one["state"][:, 6] = 0.25
        found["dead column"] += has(look(write_npz(folder / "arm.npz", episodes)), "constant")
    return found


def _swap(one: Arrays) -> None:
    one["state"][:, [0, 1]] = one["state"][:, [1, 0]]


def _unit(one: Arrays) -> None:
    one["state"][:, 1] *= 180 / np.pi


def _stuck(one: Arrays) -> None:
    one["state"][len(one["state"]) // 3 :, 1] = one["state"][len(one["state"]) // 3, 1]


def _jump(one: Arrays) -> None:
    one["state"][len(one["state"]) // 2, 1] += 3 * np.ptp(one["state"][:, 1])


def _cut(one: Arrays) -> None:
    for name in list(one):
        one[name] = np.delete(one[name], np.s_[len(one[name]) // 4 : len(one[name]) // 2], axis=0)


def _late(one: Arrays) -> None:
    one["action"][2:] = one["action"][:-2].copy()


def _sign(one: Arrays) -> None:
    one["state"][:, 1] *= -1


def _clip(one: Arrays) -> None:
    one["state"][:, 1] = one["state"][:, 1].clip(*np.quantile(one["state"][:, 1], (0.2, 0.8)))


def _nan(one: Arrays) -> None:
    one["state"][3, 0] = np.nan


GENERIC: dict[str, tuple[set[str], Callable[[Arrays], None]]] = {
    "NaN": ({"refused"}, _nan),
    "stuck sensor": ({"stuck"}, _stuck),
    "degrees": ({"unit"}, _unit),
    "swapped columns": ({"swapped", "unlike", "unit"}, _swap),
    "glitch": ({"jump"}, _jump),
    "clipped sensor": ({"saturated", "stuck"}, _clip),
    "rows lost": ({"cut"}, _cut),
    "late actions": ({"shifted", "unlike"}, _late),
    "opposite sign": ({"sign", "unlike"}, _sign),
}
"""Faults for any set: the kinds that count as found, and what plants them."""


def planted_into(folder: Path, path: Path) -> list[str]:
    """The faults that are found in the episode of median length of a set."""
    source = read_npz(str(path), 2**34)
    at = int(np.argsort([len(one) for one in source])[len(source) // 2])
    found = []
    for name, (kinds, plant) in GENERIC.items():
        episodes = [{"state": e.state.copy(), "action": e.actions.copy(), "reward": e.rewards.copy()} for e in source]
        plant(episodes[at])
        seen = look(write_npz(folder / "set.npz", episodes))
        if any(one.kind in kinds and f"set-{at:06d}" in one.episodes for one in seen.findings):
            found.append(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", type=Path)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    words = parser.parse_args()
    result: dict[str, object] = {"episodes": words.episodes, "steps": words.steps, "cameras": words.cameras}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result["seconds"] = round(time_without_cameras(folder, words.episodes, words.steps), 2)
        print(f"{words.episodes} episodes of {words.steps} steps: {result['seconds']} s")
        if words.cameras:
            result["seconds_filmed"] = round(time_with_cameras(folder, words.episodes, words.steps, words.cameras), 2)
            print(f"the same with {words.cameras} cameras of {WIDTH}x{HEIGHT}: {result['seconds_filmed']} s")
        result["planted"] = found = planted(folder, words.seeds)
        for fault, count in found.items():
            print(f"{fault:<18}{count} of {len(words.seeds)}")
        for path in words.sets:
            clean, hits = alarms(look(path)), planted_into(folder, path)
            result[path.stem] = {"alarms": clean, "found": hits, "of": len(GENERIC)}
            print(
                f"{path.stem}: {len(clean)} alarms as it is {clean}; {len(hits)} of {len(GENERIC)} planted faults: "
                f"{', '.join(hits)}"
            )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
