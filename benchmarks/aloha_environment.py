"""ALOHA's transfer of a cube (Zhao et al. 2023) as gym-aloha simulates it, N episodes side by side for phaseb.

gym-aloha shows neither the cube's pose nor a second camera, its bounds of actions leave out poses that the arms need,
and it renders three pictures of 640 x 480 a step. Here are the same physics, control, starts and reward (4: the left
gripper holds the cube in the air), and:

- `state`: the 14 joints as gym-aloha gives them and, where no camera is shown, the cube's position (m) and quaternion;
- `frames`: the cameras of CAMERAS side by side, SIDE pixels each, without shadows, drawn at every fourth step;
- actions: 14 joint positions within the joints' ranges, grippers from 0 (closed) to 1 (open).

    phaseb run environment.id=aloha_environment:TransferCubes environment.observation=state …

needs this folder in PYTHONPATH, gym-aloha beside phaseb, and for frames MUJOCO_GL=egl or osmesa.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CAMERAS = ("top", "angle")
SIDE = 64
DRAWN_EVERY = 4
"""Steps between two frames that are drawn; the others repeat the last. Policies see each fourth step (12.5 Hz)."""
HZ = 50
MAX_REWARD = 4
ARMS, GRIPPER = ("left", "right"), 6  # and the place of an arm's gripper among its seven numbers
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
STATE_NAMES = (("joints", 14), ("cube", 7))
ACTION_SIZE = 14


class Simulation:
    """One episode of gym-aloha's own task and physics, without its pictures.

    Raises:
        ImportError: where gym-aloha is not installed.
    """

    def __init__(self) -> None:
        from dm_control import mujoco
        from dm_control.rl import control
        from gym_aloha.constants import ASSETS_DIR, DT
        from gym_aloha.tasks import sim
        from gym_aloha.utils import sample_box_pose

        class Task(sim.TransferCubeTask):
            def get_observation(self, physics: Any) -> dict[str, Any]:
                return {}

        self._starts, self._sample, self._diverged = sim.BOX_POSE, sample_box_pose, control.PhysicsError
        self.physics: Any = mujoco.Physics.from_xml_path(str(ASSETS_DIR / "bimanual_viperx_transfer_cube.xml"))
        self._task = Task()
        self._environment = control.Environment(self.physics, self._task, math.inf, control_timestep=DT)

    def reset(self, seed: int) -> None:
        """Put the cube where gym-aloha puts it for this seed."""
        self._starts[0] = self._sample(seed & 0x7FFFFFFF)
        self._environment.reset()

    def step(self, action: NDArray[np.floating]) -> float | None:
        """Take an action (14,) for a fiftieth of a second; returns gym-aloha's reward, 0 to 4.

        None where the simulation diverges, as it may under actions that throw the arms against each other.
        """
        try:
            return float(self._environment.step(np.asarray(action, np.float64)).reward)
        except self._diverged:
            return None

    def state(self) -> NDArray[np.float32]:
        """(21,) joints and the cube's pose."""
        joints, cube = self._task.get_qpos(self.physics), self._task.get_env_state(self.physics)
        return np.concatenate([joints, cube]).astype(np.float32)

    def frame(self, camera: str, side: int = SIDE, shadow: bool = False) -> NDArray[np.uint8]:
        """(H, W, 3) what a camera sees."""
        flags = {"shadow": shadow}
        return np.array(self.physics.render(side, side, camera_id=camera, render_flag_overrides=flags), np.uint8)

    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(14,) least and most of the actions."""
        ranges = self.physics.named.model.jnt_range
        arms = [[ranges[f"vx300s_{arm}/{joint}"] for joint in JOINTS] + [(0.0, 1.0)] for arm in ARMS]
        low, high = np.asarray(arms, np.float32).reshape(-1, 2).T
        return low, high

    def close(self) -> None:
        self._environment.close()


class TransferCubes:
    """A `VectorEnvironment` of N episodes. The reward is 1 when gym-aloha's is 4, which ends the episode.

    An episode whose simulation diverges is cut off there, without success.

    Args:
        config: phaseb's `environment.*`: how many steps, and what is shown: `state` is joints and cube, `both` joints
            and frames.
        num_envs: N.
    """

    name = "AlohaTransferCube"

    def __init__(self, config: Any, num_envs: int) -> None:
        self.num_envs, self.max_steps = num_envs, config.max_steps
        self._shows = ("state", "frames") if config.observation == "both" else (config.observation,)
        self._simulations = [Simulation() for _ in range(num_envs)]
        self.action_low, self.action_high = self._simulations[0].bounds()
        self.state_names = {"state": STATE_NAMES, "both": STATE_NAMES[:1]}.get(config.observation, ())
        self.state_size = sum(width for _, width in self.state_names)
        self.frame_shape = (SIDE, SIDE, 3 * len(CAMERAS)) if "frames" in self._shows else None

    def reset(self, seeds: Sequence[int]) -> dict[str, NDArray[Any]]:
        self._steps, self._best = np.zeros((2, self.num_envs), int)
        self._cut = np.zeros(self.num_envs, bool)
        for simulation, seed in zip(self._simulations, seeds, strict=True):
            simulation.reset(int(seed))
        self._seen = [self._see(simulation, {}) for simulation in self._simulations]
        return self._observation()

    def step(self, actions: NDArray[np.floating]) -> tuple[Any, ...]:
        rewards = np.zeros(self.num_envs, np.float32)
        for i in np.flatnonzero(~self._over):
            simulation = self._simulations[i]
            reward = simulation.step(np.clip(actions[i], self.action_low, self.action_high))
            self._steps[i] += 1
            self._cut[i] = reward is None or self._steps[i] >= self.max_steps
            if reward is None:
                continue
            self._best[i] = max(self._best[i], reward)
            rewards[i] = self._best[i] == MAX_REWARD
            drawn = self._steps[i] % DRAWN_EVERY == 0
            self._seen[i] = self._see(simulation, {} if drawn else self._seen[i])
        terminated = self._best == MAX_REWARD
        return self._observation(), rewards, terminated, self._cut.copy(), {}

    def economics(self) -> dict[str, NDArray[np.float64]]:
        """A success is a good unit, an episode without one an error; `stage` is gym-aloha's highest reward so far."""
        good = (self._best == MAX_REWARD).astype(np.float64)
        hours = self._steps / HZ / 3600
        units = {"good_units": good, "errors": 1 - good, "error_rate": 1 - good}
        return {**units, "duration_h": hours, "return": good, "stage": self._best.astype(np.float64)}

    def render(self) -> NDArray[np.uint8] | None:
        return None

    def close(self) -> None:
        for simulation in self._simulations:
            simulation.close()

    @property
    def _over(self) -> NDArray[np.bool_]:
        return np.asarray((self._best == MAX_REWARD) | self._cut)

    def _see(self, simulation: Simulation, last: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        seen: dict[str, NDArray[Any]] = {}
        if "state" in self._shows:
            seen["state"] = simulation.state()[: self.state_size]
        if "frames" in self._shows:
            frames = last.get("frames")
            drawn = frames is None and [simulation.frame(camera) for camera in CAMERAS]
            seen["frames"] = np.concatenate(drawn, axis=2) if drawn else frames
        return seen

    def _observation(self) -> dict[str, NDArray[Any]]:
        return {name: np.stack([seen[name] for seen in self._seen]) for name in self._shows}
