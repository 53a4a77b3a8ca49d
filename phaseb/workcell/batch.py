"""The gantry cell, many at once: its rules, its rewards, its economics.

N cells. A part waits at the in-feed; the hook fetches it, the crane carries it to the out-feed. The gripper acts on
the state as it stands when the action arrives, then the drive is held for one control step.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.environment import Observation, Step
from phaseb.runtime.seeding import numpy_generator
from phaseb.workcell.camera import FRAME_SIZE, Camera
from phaseb.workcell.physics import CONTROL_STEP_S, CellParameters, Cranes
from phaseb.workcell.sensors import STATE_HIGH, STATE_NAMES, draw_noise

INFEED_M, OUTFEED_M = (-1.5, -0.3), (0.3, 1.5)
START_M, START_SWING_RAD = (-0.6, 0.6), (-0.05, 0.05)
PICK_DISTANCE_M, PICK_SPEED_M_S = 0.15, 0.6
PLACE_DISTANCE_M, PLACE_SPEED_M_S = 0.12, 0.4
GOOD_REWARD, ERROR_REWARD, PICK_REWARD = 1.0, -1.0, 0.5
REWARD_PER_JOULE, POTENTIAL_FACTOR, POTENTIAL_S = -0.004, 0.5, 0.3
JOULES_PER_WH = 3600.0


class BatchedCell:
    """A `VectorEnvironment` of N gantry cells, integrated in one thread.

    Actions (N, 2) in [-1, 1]: drive (a share of the full force) and gripper (above 0 it acts: an empty hook picks,
    a loaded one places). Nothing but sensor noise is random after the reset, so recorded actions replay.
    """

    def __init__(
        self,
        num_envs: int,
        observation: Literal["state", "frames", "both"] = "both",
        max_steps: int = 60,
        config: CellParameters | None = None,
    ) -> None:
        self.name = "workcell"
        self.num_envs, self.max_steps, self.observation = num_envs, max_steps, observation
        self.config = config or CellParameters()
        self.action_low = np.full(2, -1, dtype=np.float32)
        self.action_high = np.full(2, 1, dtype=np.float32)
        self.state_size = 0 if observation == "frames" else len(STATE_NAMES)
        self.frame_shape = None if observation == "state" else (FRAME_SIZE, FRAME_SIZE, 3)
        self._cranes = Cranes(self.config, num_envs)
        self._camera: Camera | None = None
        self._backgrounds: list[Any] = []
        self._step = -1  # not reset yet

    def reset(self, seeds: Sequence[int], noise_seeds: Sequence[int] | None = None) -> Observation:
        """Start N episodes: feeds, part and starting place follow from `seeds`, sensor noise from `noise_seeds`.

        Without `noise_seeds` the noise follows from `seeds` too; with them, the same episode is seen once more
        through other noise.

        Raises:
            ValueError: where there are not N seeds.
        """
        noise_seeds = seeds if noise_seeds is None else noise_seeds
        if len(seeds) != self.num_envs or len(noise_seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds, {len(noise_seeds)} noise seeds for {self.num_envs} cells")
        ranges = np.array([INFEED_M, OUTFEED_M, self.config.part_mass_kg, START_M, START_SWING_RAD])
        draws = np.stack([numpy_generator(seed, "cell").uniform(ranges[:, 0], ranges[:, 1]) for seed in seeds])
        self._infeed, self._outfeed, self._part = draws[:, 0], draws[:, 1], draws[:, 2]
        self._cranes.place(draws[:, 3:5], np.zeros((self.num_envs, 2)))
        self._noise = np.stack([draw_noise(seed, self.max_steps, self.config.sensor_noise) for seed in noise_seeds])
        self._step = 0
        self._backgrounds = []
        self._good, self._errors, self._energy_j, self._return = np.zeros((4, self.num_envs))
        return self._observe()

    def step(self, actions: NDArray[np.floating]) -> Step:
        """One control step of 0.25 s.

        Returns:
            observation, rewards, terminated (never: a shift has no end but its time), truncated, and infos
            "picked", "good", "error" (bool) and "energy_j".

        Raises:
            ValueError: actions of another shape or not finite, or an episode that is over or not begun.
        """
        actions = np.asarray(actions, dtype=np.float64)
        if actions.shape != (self.num_envs, 2) or not np.isfinite(actions).all():
            raise ValueError(f"wanted finite actions ({self.num_envs}, 2), got {actions.shape}: {actions}")
        if not 0 <= self._step < self.max_steps:
            raise ValueError("the episodes are over, or never began: call reset first")
        drive = np.clip(actions[:, 0], -1, 1)
        picked, good, error = self._grip(actions[:, 1] > 0)
        before = self._potential()
        energy_j = self.config.max_force_n * np.abs(drive) * self._cranes.advance(drive)
        gain = np.where(picked | good | error, 0.0, self._potential() - before)
        rewards = GOOD_REWARD * good + ERROR_REWARD * error + PICK_REWARD * picked
        rewards = rewards + REWARD_PER_JOULE * energy_j + POTENTIAL_FACTOR * gain
        self._step += 1
        self._good += good
        self._errors += error
        self._energy_j += energy_j
        self._return += rewards
        infos = {"picked": picked, "good": good, "error": error, "energy_j": energy_j}
        over = np.full(self.num_envs, self._step == self.max_steps)
        return self._observe(), rewards.astype(np.float32), np.zeros(self.num_envs, dtype=bool), over, infos

    def economics(self) -> dict[str, NDArray[np.float64]]:
        """Measured so far: good units, errors, Wh, hours, and what follows from them; `return` is the rewards' sum."""
        hours = np.full(self.num_envs, self._step * CONTROL_STEP_S / 3600.0)
        energy_wh, attempts = self._energy_j / JOULES_PER_WH, self._good + self._errors
        return {
            "mpl": _ratio(self._good, hours),
            "error_rate": _ratio(self._errors, attempts),
            "energy_wh": energy_wh,
            "energy_wh_per_unit": _ratio(energy_wh, self._good),
            "duration_h": hours,
            "good_units": self._good.copy(),
            "errors": self._errors.copy(),
            "return": self._return.copy(),
        }

    def true_state(self) -> dict[str, NDArray[np.float64]]:
        """(N,) each, without noise: what probes should find, and what an oracle may know."""
        cranes = self._cranes
        return {
            "cart_position": cranes.position[:, 0].copy(),
            "cart_speed": cranes.velocity[:, 0].copy(),
            "swing": cranes.position[:, 1].copy(),
            "swing_rate": cranes.velocity[:, 1].copy(),
            "hook_position": cranes.hook_position,
            "hook_speed": cranes.hook_speed,
            "loaded": (cranes.load > 0).astype(np.float64),
            "infeed": self._infeed.copy(),
            "outfeed": self._outfeed.copy(),
            "part_mass": self._part.copy(),
        }

    def render(self, size: int = FRAME_SIZE) -> NDArray[np.uint8]:
        """Pictures (N, size, size, 3) of the cells as they stand."""
        if self._camera is None or self._camera.size != size:
            self._camera, self._backgrounds = Camera(size), []
        camera = self._camera
        if not self._backgrounds:
            pairs = zip(self._infeed.tolist(), self._outfeed.tolist(), strict=True)
            self._backgrounds = [camera.background(*pair) for pair in pairs]
        frames = np.empty((self.num_envs, size, size, 3), dtype=np.uint8)
        position, loaded = self._cranes.position.tolist(), (self._cranes.load > 0).tolist()
        infeed, part = self._infeed.tolist(), self._part.tolist()
        for i, background in enumerate(self._backgrounds):
            camera.draw(
                background,
                frames[i],
                cart_m=position[i][0],
                swing_rad=position[i][1],
                rope_m=self.config.rope_length_m,
                infeed_m=infeed[i],
                part_kg=part[i],
                loaded=loaded[i],
            )
        return frames

    def close(self) -> None:
        """Nothing is held."""

    def _grip(self, acts: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        cranes, loaded = self._cranes, self._cranes.load > 0
        hook, speed = cranes.hook_position, np.abs(cranes.hook_speed)
        at_infeed = (np.abs(hook - self._infeed) <= PICK_DISTANCE_M) & (speed <= PICK_SPEED_M_S)
        at_outfeed = (np.abs(hook - self._outfeed) <= PLACE_DISTANCE_M) & (speed <= PLACE_SPEED_M_S)
        picked, placed = acts & ~loaded & at_infeed, acts & loaded
        if picked.any():
            cranes.attach(picked, self._part)
        if placed.any():
            cranes.release(placed)
        return picked, placed & at_outfeed, placed & ~at_outfeed

    def _potential(self) -> NDArray[np.float64]:
        target = np.where(self._cranes.load > 0, self._outfeed, self._infeed)
        distance = np.abs(target - self._cranes.hook_position)
        return -distance - POTENTIAL_S * np.abs(self._cranes.hook_speed)

    def _observe(self) -> Observation:
        observation: Observation = {}
        if self.observation != "frames":
            cranes, hook = self._cranes, self._cranes.hook_position
            state = np.empty((self.num_envs, len(STATE_NAMES)))
            state[:, 0:4:2], state[:, 1:4:2] = cranes.position, cranes.velocity
            state[:, 4] = np.where(cranes.load > 0, 1.0, -1.0)
            state[:, 5], state[:, 6], state[:, 7] = self._infeed - hook, self._outfeed - hook, self._part
            state += self._noise[:, self._step]
            observation["state"] = np.clip(state, -STATE_HIGH, STATE_HIGH).astype(np.float32)
        if self.observation != "state":
            observation["frames"] = self.render()
        return observation


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
