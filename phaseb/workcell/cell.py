"""The gantry cell by the Gymnasium API."""

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from phaseb.workcell.batch import BatchedCell
from phaseb.workcell.camera import FRAME_SIZE
from phaseb.workcell.physics import CONTROL_STEP_S, CellParameters
from phaseb.workcell.sensors import STATE_HIGH

ENVIRONMENT_ID = "phaseb/GantryCell-v0"


class GantryCell(gymnasium.Env[Any, NDArray[np.float32]]):
    """One gantry cell: a `BatchedCell` of one, so both are the same physics.

    Args:
        observation: "state" (8,) float32, "frames" (64, 64, 3) uint8, or "both" as a Dict of the two.
        max_steps: control steps of 0.25 s after which the episode is truncated.
        render_mode: None or "rgb_array".
        config: the cell's physics; the defaults where absent.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / CONTROL_STEP_S)}  # noqa: RUF012 (Gymnasium's own)

    def __init__(
        self,
        observation: Literal["state", "frames", "both"] = "state",
        max_steps: int = 60,
        render_mode: str | None = None,
        config: CellParameters | None = None,
    ) -> None:
        self.render_mode = render_mode
        self._cell = BatchedCell(1, observation, max_steps, config)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        seen: dict[str, spaces.Space[Any]] = {
            "state": spaces.Box(-STATE_HIGH, STATE_HIGH, dtype=np.float32),
            "frames": spaces.Box(0, 255, (FRAME_SIZE, FRAME_SIZE, 3), np.uint8),
        }
        self.observation_space = spaces.Dict(seen) if observation == "both" else seen[observation]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; `options["noise_seed"]` redraws the sensor noise and leaves all else to `seed`."""
        super().reset(seed=seed)
        episode_seed = int(self.np_random.integers(2**62)) if seed is None else seed
        noise_seed = (options or {}).get("noise_seed", episode_seed)
        return self._unbatch(self._cell.reset([episode_seed], [noise_seed])), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One control step; infos carry the step's events, the true state and the economics so far."""
        observation, rewards, terminated, truncated, infos = self._cell.step(np.asarray(action)[None])
        events = {name: column[0].item() for name, column in infos.items()}
        return (
            self._unbatch(observation),
            float(rewards[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            self._info() | events,
        )

    def render(self) -> Any:
        """The picture (64, 64, 3) where `render_mode` is "rgb_array"."""
        return self._cell.render()[0] if self.render_mode == "rgb_array" else None

    def _unbatch(self, observation: dict[str, NDArray[Any]]) -> Any:
        single = {name: column[0] for name, column in observation.items()}
        return single if len(single) > 1 else next(iter(single.values()))

    def _info(self) -> dict[str, Any]:
        economics = {name: float(column[0]) for name, column in self._cell.economics().items()}
        return {
            "true_state": {name: float(column[0]) for name, column in self._cell.true_state().items()},
            # Absent where unknown: NaN is unequal to itself, and infos of equal steps must be equal.
            "economics": {name: value for name, value in economics.items() if np.isfinite(value)},
        }


def register() -> None:
    """Make the cell known to `gymnasium.make` (once; again does nothing)."""
    if ENVIRONMENT_ID not in gymnasium.registry:
        gymnasium.register(ENVIRONMENT_ID, entry_point="phaseb.workcell.cell:GantryCell")
