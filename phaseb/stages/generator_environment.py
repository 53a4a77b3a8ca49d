"""A generator of a run as a Gymnasium environment: any learner can train in it.

    gymnasium.make("phaseb/Generator-v0", run="runs/demo", generator="gp")

`import phaseb.stages.generator_environment` registers the id; where phaseb is installed, Gymnasium does it itself.
"""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from phaseb.config.arms import CHOSEN
from phaseb.dynamics.protocol import DynamicsModel, load_generator
from phaseb.dynamics.walk import Walk, WalkStep, start_walk
from phaseb.episodes.shards import read_trajectories
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.seeding import torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.arm_generator import choice_of
from phaseb.stages.gymnasium_ids import GENERATOR_ID, register
from phaseb.trust.model import TrustModel

Floats = NDArray[np.float32]


class GeneratorEnv(gymnasium.Env[Floats, Floats]):
    """Episodes that a generator makes, from states that were recorded.

    Observations are latents (D,), actions (A,) in [-1, 1]. `info` holds `uncertainty` in units of the generator's own
    scale (1 is usual for recorded actions), and `trust`, the gate's calibrated probability that the step is real.

    Args:
        run: a run directory whose `dynamics` stage is done.
        generator: its name; `chosen`: the one in which the run's policies branch.
        max_steps: steps after which an episode is truncated.
        max_uncertainty: uncertainty, in units of the generator's scale, beyond which an episode is truncated.
        split: whose recorded states episodes start from.
        trust: whether to ask the gate at every step; it costs a few milliseconds.

    Raises:
        DataError: where the run lacks a part, or no generator serves.
        ConfigError: where it has no generator of that name.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own)

    def __init__(
        self,
        run: str,
        generator: str = CHOSEN,
        max_steps: int = 60,
        max_uncertainty: float = float("inf"),
        split: str = "train",
        trust: bool = True,
    ) -> None:
        store = Store.at(run)
        self.generator = _load(store, generator)
        self._starts = _recorded_states(store, split)
        self._gate = TrustModel.load(store.folder("trust")) if trust else None
        self._max_steps, self._max_uncertainty = max_steps, max_uncertainty
        self.observation_space = spaces.Box(-np.inf, np.inf, (self.generator.latent_size,), np.float32)
        self.action_space = spaces.Box(-1, 1, (self.generator.action_size,), np.float32)
        self._walk: Walk | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Start an episode at a recorded state, or at the latent `options["start"]` (D,)."""
        super().reset(seed=seed)
        given = (options or {}).get("start")
        drawn = self._starts[self.np_random.integers(len(self._starts))]
        start = np.asarray(drawn if given is None else given, np.float32)
        if start.shape != self.observation_space.shape:
            raise ValueError(f"options['start'] has shape {start.shape}, wanted {self.observation_space.shape}")
        draws = torch_generator(int(self.np_random.integers(2**62)), "generator environment")
        self._walk = start_walk(self.generator, torch.from_numpy(start[None].copy()), draws)
        self._z: list[Floats] = [start]
        self._actions: list[Floats] = []
        self._rewards: list[float] = []
        self._ends: list[float] = []
        return start.copy(), {}

    def step(self, action: Floats) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Take an action (A,); it is clipped to [-1, 1].

        Raises:
            ValueError: before the first reset.
        """
        if self._walk is None:
            raise ValueError("call reset first")
        taken = np.clip(np.asarray(action, np.float32), -1, 1)
        made = self._walk.step(torch.from_numpy(taken[None]))
        self._note(taken, made)
        info = self._info(float(made.uncertainty[0]))
        over = len(self._rewards) >= self._max_steps or info["uncertainty"] > self._max_uncertainty
        return self._z[-1].copy(), self._rewards[-1], bool(self._ends[-1]), over and not self._ends[-1], info

    def _note(self, action: Floats, made: WalkStep) -> None:
        self._z.append(made.z[0].numpy().astype(np.float32))
        self._actions.append(action)
        self._rewards.append(float(made.reward[0]))
        self._ends.append(float(made.terminal[0]))

    def _info(self, uncertainty: float) -> dict[str, Any]:
        scale = self.generator.uncertainty_scale
        info: dict[str, Any] = {"uncertainty": uncertainty / scale if scale else uncertainty}
        if self._gate is not None:
            info["trust"] = float(self._gate.levels(self._episode()).transition[0, -1])
        return info

    def _episode(self) -> Trajectories:
        """The episode so far."""
        steps = len(self._rewards)
        return Trajectories(
            z=np.stack(self._z)[None],
            actions=np.stack(self._actions)[None],
            rewards=np.array([self._rewards], np.float32),
            terminals=np.array([self._ends], np.float32),
            lengths=np.array([steps]),
            ids=("episode",),
            splits=("",),
        )


def _load(store: Store, name: str) -> DynamicsModel:
    served = choice_of(store).get("generator") if name == CHOSEN else name
    if served is None:
        raise DataError(f"{store.root} has no chosen generator: name one, or run `phaseb dynamics`")
    fitted = [found for found in store.folders("dynamics") if store.exists("dynamics", found, "meta.json")]
    if served not in fitted:
        raise ConfigError(f"{store.root} has no generator {served!r}; it has {', '.join(fitted) or 'none'}")
    return load_generator(store.folder("dynamics", served))


def _recorded_states(store: Store, split: str) -> Floats:
    """(M, D) every state of a split that was followed by another."""
    recorded = read_trajectories(store.folder("latents"), (split,))
    if not recorded.mask.any():
        raise DataError(f"{store.root} has no {split} episodes to start from")
    return recorded.z[:, :-1][recorded.mask]


register()
__all__ = ["GENERATOR_ID", "GeneratorEnv"]
