"""Record scripted transfers of a cube between ALOHA's arms: 400 steps at 50 Hz, two cameras, robomimic's HDF5 layout.

    MUJOCO_GL=egl python benchmarks/aloha_episodes.py --out transfers.hdf5 --episodes 50

A script moves each gripper through a few poses. Inverse kinematics in closed form turns them into positions of the
joints, which the simulated servos follow with the delay that they have; what is recorded is what is then seen. An
episode at whose end the left gripper does not hold the cube, by gym-aloha's own reward, is left out and counted. It
needs gym-aloha and h5py, and nothing of phaseb.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from aloha_environment import ACTION_SIZE, ARMS, CAMERAS, HZ, MAX_REWARD, SIDE, Simulation
from numpy.typing import NDArray

STEPS = 400
PICK_PITCH, MEET_PITCH, ROLL = np.radians(80), np.radians(10), np.pi / 2  # below the horizontal; of the left gripper
MEET = np.array([0.0, 0.5, 0.28])  # m
BASES = {"left": (np.array([-0.469, 0.5]), 0.0), "right": (np.array([0.469, 0.5]), np.pi)}  # m, and where they face
SHOULDER_M, UPPER, FOREARM_M = 0.12705, np.array([0.05955, 0.3]), 0.3  # a ViperX 300: height, and links, m
GRIPPER_M = 0.069744 + 0.13  # from the wrist to where the fingers hold
Floats = NDArray[np.float64]


class Pose(NamedTuple):
    """Where a gripper is at a step: grasp point (m), pitch below the horizontal and roll (rad), 0 closed to 1 open."""

    step: int
    place: Floats
    pitch: float
    roll: float
    opening: float


def script(cube: Floats) -> dict[str, list[Pose]]:
    """The poses of both grippers for a cube (3,) on the table."""

    def moved(place: Floats, x: float = 0.0, z: float = 0.0) -> Floats:
        return place + np.array([x, 0.0, z])

    right = [
        Pose(75, moved(cube, z=0.09), PICK_PITCH, 0, 1),
        Pose(115, cube, PICK_PITCH, 0, 1),
        Pose(135, cube, PICK_PITCH, 0, 0),
        Pose(175, moved(cube, z=0.12), PICK_PITCH, 0, 0),
        Pose(240, MEET, MEET_PITCH, 0, 0),
        Pose(315, MEET, MEET_PITCH, 0, 0),
        Pose(335, MEET, MEET_PITCH, 0, 1),
        Pose(380, moved(MEET, x=0.12), MEET_PITCH, 0, 1),
    ]
    left = [
        Pose(150, moved(MEET, x=-0.16), 0, ROLL, 1),
        Pose(235, moved(MEET, x=-0.10), 0, ROLL, 1),
        Pose(285, MEET, 0, ROLL, 1),
        Pose(310, MEET, 0, ROLL, 0),
        Pose(345, MEET, 0, ROLL, 0),
        Pose(390, moved(MEET, x=-0.08), 0, ROLL, 0),
    ]
    return {"left": left, "right": right}


def along(poses: Sequence[Pose], steps: int) -> list[Pose]:
    """A pose for each of the steps 0 … `steps` - 1, at even speed from one to the next; it stays at the last."""
    times = np.array([pose.step for pose in poses])
    found = []
    for step in range(steps):
        after = min(int(np.searchsorted(times, step, side="right")), len(poses) - 1)
        a, b = poses[max(after - 1, 0)], poses[after]
        share = np.clip((step - a.step) / max(b.step - a.step, 1), 0, 1)
        found.append(Pose(step, *(x + share * (y - x) for x, y in zip(a[1:], b[1:], strict=True))))
    return found


def joints_of(arm: str, pose: Pose) -> Floats:
    """(6,) the joints that bring a gripper to a pose: the arm in one plane, so its forearm never rolls.

    Raises:
        ValueError: for a place out of reach.
    """
    base, facing = BASES[arm]
    ahead, across = pose.place[:2] - base
    waist = (np.arctan2(across, ahead) - facing + np.pi) % (2 * np.pi) - np.pi
    out = np.hypot(ahead, across) - GRIPPER_M * np.cos(pose.pitch)
    up = pose.place[2] - SHOULDER_M + GRIPPER_M * np.sin(pose.pitch)
    upper, distance = np.hypot(*UPPER), np.hypot(out, up)
    cosine = (upper**2 + distance**2 - FOREARM_M**2) / (2 * upper * distance)
    if abs(cosine) > 1:
        raise ValueError(f"the {arm} gripper cannot reach {pose.place} m")
    raised = np.arctan2(up, out) + np.arccos(cosine)  # of the upper arm, above the horizontal
    shoulder = np.arctan2(UPPER[1], UPPER[0]) - raised
    lowered = -np.arctan2(up - upper * np.sin(raised), out - upper * np.cos(raised))  # of the forearm
    return np.array([waist, shoulder, lowered - shoulder, 0.0, pose.pitch - lowered, pose.roll])


def place_of(arm: str, joints: Floats) -> tuple[Floats, float]:
    """The place (3,) and pitch of a gripper whose arm is in one plane: what `joints_of` undoes."""
    base, facing = BASES[arm]
    waist, shoulder, elbow, _, wrist, _ = joints
    raised = np.arctan2(UPPER[1], UPPER[0]) - shoulder
    lowered, pitch = shoulder + elbow, shoulder + elbow + wrist
    out = np.hypot(*UPPER) * np.cos(raised) + FOREARM_M * np.cos(lowered) + GRIPPER_M * np.cos(pitch)
    up = np.hypot(*UPPER) * np.sin(raised) - FOREARM_M * np.sin(lowered) - GRIPPER_M * np.sin(pitch)
    yaw = waist + facing
    return np.array([*(base + out * np.array([np.cos(yaw), np.sin(yaw)])), SHOULDER_M + up]), float(pitch)


def plan(state: Floats) -> Floats:
    """Actions (STEPS, 14) for joints and a cube (21,) as they stand."""
    poses, actions = script(np.array([*state[ACTION_SIZE:][:2], 0.02])), np.zeros((STEPS, ACTION_SIZE))
    for number, arm in enumerate(ARMS):
        part = slice(7 * number, 7 * number + 7)
        *joints, opening = state[part]
        rest = Pose(0, *place_of(arm, np.array(joints)), 0.0, float(opening))
        actions[:, part] = [[*joints_of(arm, pose), pose.opening] for pose in along([rest, *poses[arm]], STEPS)]
    return actions


def play(simulation: Simulation, actions: Floats, cameras: Sequence[str]) -> dict[str, NDArray[Any]]:
    """What is seen before each action, and gym-aloha's reward after it."""
    seen: dict[str, list[Any]] = {name: [] for name in ("state", "reward", *cameras)}
    for action in actions:
        seen["state"].append(simulation.state())
        for camera in cameras:
            seen[camera].append(simulation.frame(camera))
        seen["reward"].append(simulation.step(action) or 0.0)
    return {name: np.stack(rows) for name, rows in seen.items()}


def write(group: Any, actions: Floats, seen: Mapping[str, NDArray[Any]]) -> None:
    """An episode as a robomimic demonstration: `actions`, `success`, `obs/joints`, `obs/cube` and `obs/CAMERA`."""
    group["actions"] = actions.astype(np.float32)
    group["success"] = (seen["reward"] == MAX_REWARD).astype(np.uint8)
    group["obs/joints"], group["obs/cube"] = seen["state"][:, :ACTION_SIZE], seen["state"][:, ACTION_SIZE:]
    for camera in CAMERAS:
        frames = seen[camera]
        group.create_dataset(f"obs/{camera}", data=frames, chunks=(1, *frames.shape[1:]), compression="gzip")


def record(out: Path, count: int, first_seed: int, steps: int = STEPS) -> dict[str, Any]:
    """Record `count` episodes that succeed, of the seeds from `first_seed` on; returns what was done.

    An episode succeeds if the left gripper still holds the cube at the end. It is drawn only then: it is played twice.
    """
    import h5py

    simulation, began, seed, failed = Simulation(), time.monotonic(), first_seed, list[int]()
    with h5py.File(out, "w") as file:
        while seed - first_seed - len(failed) < count:
            simulation.reset(seed)
            actions = plan(simulation.state().astype(np.float64))
            if play(simulation, actions, ())["reward"][-1] < MAX_REWARD:
                failed.append(seed)
            else:
                simulation.reset(seed)
                done = seed - first_seed - len(failed)
                write(
                    file.create_group(f"data/demo_{done}"), actions[:steps], play(simulation, actions[:steps], CAMERAS)
                )
            seed += 1
    told = {"episodes": count, "steps": steps, "hz": HZ, "cameras": list(CAMERAS), "side": SIDE, "failed": failed}
    minutes = round((time.monotonic() - began) / 60, 2)
    return told | {"minutes": minutes, "bytes": out.stat().st_size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help="rows of an episode that are kept")
    options = parser.parse_args()
    print(json.dumps(record(options.out, options.episodes, options.first_seed, options.steps)))


if __name__ == "__main__":
    main()
