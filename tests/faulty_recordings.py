"""Recordings of a small simulated arm, and faults planted into them one at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STEP_S = 0.05
Episode = dict[str, np.ndarray]


def arm_episodes(count: int = 24, steps: int = 120, seed: int = 0) -> list[Episode]:
    """`count` episodes of an arm of three joints with a gripper that reaches for random targets under PD control.

    Each is `state` (steps + 1, 10), angles, speeds, loads and the gripper's width, `action` (steps, 4) and `reward`.
    """
    rng = np.random.default_rng(seed)
    inertia, damping = np.array([1.2, 0.7, 0.3]), np.array([0.8, 0.6, 0.5])
    found = []
    for _ in range(count):
        angle, speed = rng.uniform([-0.4, 0.6, -0.2], [0.4, 1.2, 0.2]), np.zeros(3)
        target, width, lag = rng.uniform([-1.2, 0.2, -0.8], [1.2, 1.8, 0.8]), 0.08, rng.uniform(0.7, 1.3)
        states, actions = [], []
        for t in range(steps + 1):
            if t % 40 == 39:
                target = rng.uniform([-1.2, 0.2, -0.8], [1.2, 1.8, 0.8])
            torque = lag * (3 * (target - angle) - 1.5 * speed) + rng.normal(0, 0.15, 3)
            close = float(t % 80 > 40)
            load = 2.0 * np.sin(angle.cumsum()) + 0.1 * torque
            noise = rng.normal(0, 1, 10) * [*[1e-3] * 3, *[5e-3] * 3, *[2e-2] * 3, 2e-4]
            states.append(np.concatenate([angle, speed, load, [width]]) + noise)
            actions.append([*torque, close])
            speed = speed + STEP_S * (torque - damping * speed - 0.3 * np.sin(angle)) / inertia
            angle = angle + STEP_S * speed
            width += 0.3 * ((0.02 if close else 0.08) - width)
        state, action = np.array(states, np.float32), np.array(actions[:-1], np.float32)
        reward = -np.abs(state[1:, :3]).sum(axis=1).astype(np.float32)
        found.append({"state": state, "action": action, "reward": reward})
    return found


def write_npz(path: Path, episodes: list[Episode], **arrays: Any) -> Path:
    """The episodes as an NPZ file of phaseb's layout, padded with zeros."""
    most = max(len(one["action"]) for one in episodes)

    def padded(name: str, rows: int) -> np.ndarray:
        parts = [one[name] for one in episodes]
        return np.stack([np.concatenate([p, np.zeros((rows - len(p), *p.shape[1:]), p.dtype)]) for p in parts])

    lengths = np.array([len(one["action"]) for one in episodes])
    columns = {"observations": padded("state", most + 1), "actions": padded("action", most)}
    np.savez(path, rewards=padded("reward", most), lengths=lengths, **columns, **arrays)
    return path


def _nan(one: Episode) -> None:
    one["state"][57, 4] = np.nan


def _stuck(one: Episode) -> None:
    one["state"][30:, 1] = one["state"][30, 1]


def _stale(one: Episode) -> None:
    one["state"][60:90] = one["state"][60]


def _swapped(one: Episode) -> None:
    one["state"][:, [0, 1]] = one["state"][:, [1, 0]]


def _swapped_actions(one: Episode) -> None:
    one["action"][:, [0, 2]] = one["action"][:, [2, 0]]


def _unit(one: Episode) -> None:
    one["state"][:, :3] *= np.float32(180 / np.pi)


def _milli(one: Episode) -> None:
    one["state"][:, 9] *= 1000


def _jump(one: Episode) -> None:
    one["state"][44, 2] += 3.0


def _saturated(one: Episode) -> None:
    one["state"][:, 3] = np.clip(one["state"][:, 3], -0.15, 0.15)


def _cut(one: Episode) -> None:
    for name, array in list(one.items()):
        one[name] = np.delete(array, np.s_[20:70], axis=0)


def _late(one: Episode) -> None:
    one["action"][2:] = one["action"][:-2].copy()


def _sign(one: Episode) -> None:
    one["state"][:, 5] *= -1


def _other_dynamics(one: Episode) -> None:
    rng = np.random.default_rng(9)
    one["state"][:, 3:6] += rng.normal(0, 0.3, one["state"][:, 3:6].shape).astype(np.float32)


IN_ONE: dict[str, tuple[str, Callable[[Episode], None]]] = {
    "NaN": ("refused", _nan),
    "stuck sensor": ("stuck", _stuck),
    "repeated rows": ("stuck", _stale),
    "swapped columns": ("swapped", _swapped),
    "swapped actions": ("swapped", _swapped_actions),
    "degrees": ("unit", _unit),
    "millimetres": ("unit", _milli),
    "glitch": ("jump", _jump),
    "clipped sensor": ("saturated", _saturated),
    "rows lost": ("cut", _cut),
    "late actions": ("shifted", _late),
    "opposite sign": ("sign", _sign),
    "noisy sensor": ("unlike", _other_dynamics),
}
"""By name: the kind of the finding, and what plants the fault into one episode."""


def write_video(path: Path, frames: np.ndarray, fps: int) -> None:
    """Frames (N, H, W, 3) as H.264, a whole picture every second frame, as LeRobot writes them."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "23", "g": "2"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def moving_frames(count: int, seed: int, height: int = 64, width: int = 96) -> np.ndarray:
    """`count` noisy pictures (count, H, W, 3) of a bright square that moves over a textured ground."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 120, (height, width, 3))
    frames = np.clip(ground + rng.normal(0, 4, (count, height, width, 3)), 0, 255).astype(np.uint8)
    for t in range(count):
        x = int((width - 12) * (0.5 + 0.5 * np.sin(0.11 * t + seed)))
        y = int((height - 12) * (0.5 + 0.5 * np.cos(0.07 * t)))
        frames[t, y : y + 12, x : x + 12] = 240
    return frames
