"""Any Gymnasium environment as a `VectorEnvironment`: N copies, stepped one after the other.

The environment is foreign code: whatever it raises, and whatever it returns that does not fit its own spaces, becomes
one line that names the environment and the step.
"""

import contextlib
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from phaseb.config.data import EnvironmentConfig
from phaseb.config.section import is_plugin
from phaseb.episodes.environment import Observation, Step, VectorEnvironment
from phaseb.episodes.episode import METRICS
from phaseb.errors import ConfigError, DataError, PhasebError
from phaseb.policy.gym_observation import ObservationLayout
from phaseb.runtime.plugins import load_plugin

# Older environments take 32-bit seeds only.
SEED_MASK = 0x7FFFFFFF
TASK_ATTRIBUTES = ("task_description", "task")
"""Where LeRobot looks for an environment's task, in this order."""

Seen = tuple[NDArray[np.floating] | None, NDArray[np.uint8] | None]


def make(config: EnvironmentConfig, num_envs: int, render: bool = False) -> VectorEnvironment:
    """The environment that `environment.id` names: a Gymnasium id, or `module:Class`.

    The class is a `gymnasium.Env` that takes no arguments, or anything that gives a `VectorEnvironment` when called
    with (config, num_envs).

    Raises:
        ConfigError: an unknown id or class, one that cannot be made, or spaces that are not understood.
    """
    target = _load(config.id) if ":" in config.id else None
    if target is None or (isinstance(target, type) and issubclass(target, gymnasium.Env)):
        return GymVector(config.id, num_envs, config.max_steps, render, make_one=target)
    try:
        environment = target(config, num_envs)
    except Exception as error:  # noqa: BLE001 (foreign code)
        _refuse(config.id, error)
    if not isinstance(environment, VectorEnvironment):
        raise ConfigError(f"environment.id={config.id}: neither a gymnasium.Env nor a VectorEnvironment")
    return environment


class GymVector:
    """N copies of a Gymnasium environment.

    Observations that are uint8 pictures (H, W, 1, 3 or 4) become "frames"; everything else is flattened into
    "state"; a Dict may hold both. `economics` is what the environment's infos hold under "economics", and the sum of
    rewards as `return`; the rest is NaN.

    Raises:
        ConfigError: an unknown id, one that cannot be made, actions that are not a Box, observations that are not
            numbers.
    """

    def __init__(
        self,
        environment_id: str,
        num_envs: int,
        max_steps: int,
        render: bool = False,
        make_one: Callable[[], gymnasium.Env[Any, Any]] | None = None,
    ) -> None:
        self.name, self.num_envs, self.max_steps = environment_id, num_envs, max_steps
        self._render = render
        self._envs = [self._make(make_one) for _ in range(num_envs)]
        actions, observations = self._envs[0].action_space, self._envs[0].observation_space
        if not isinstance(actions, spaces.Box) or len(actions.shape) != 1:
            raise ConfigError(f"environment.id={self.name}: actions are {actions}; a Box of one dimension is needed")
        self._actions = actions
        self.action_low = actions.low.astype(np.float32)
        self.action_high = actions.high.astype(np.float32)
        self._layout = ObservationLayout(self.name, observations)
        self.state_size, self.frame_shape = self._layout.state_size, self._layout.frame_shape
        self.state_names = self._layout.state_names
        self._begun = False

    def reset(self, seeds: Sequence[int]) -> Observation:
        """Start N episodes.

        Raises:
            DataError: the environment failed, or its observation does not fit its space.
            ValueError: not N seeds.
        """
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments")
        return self._begin(seeds, [None] * self.num_envs)

    def reset_to(self, seeds: Sequence[int], tasks: Sequence[str]) -> Observation:
        """Start N episodes of these tasks: each environment gets its own by the option `task`, and may ignore it."""
        return self._begin(seeds, [{"task": task} for task in tasks])

    @property
    def episode_tasks(self) -> list[str]:
        """The tasks of the N episodes: `task` in the info of a reset, else the attribute `task_description` or `task`.

        "" where none of them is a text; the info may hold a whole number too.
        """
        return [self._task_of(i) for i in range(self.num_envs)]

    def _begin(self, seeds: Sequence[int], options: Sequence[dict[str, Any] | None]) -> Observation:
        self._begun, self._steps = True, np.zeros(self.num_envs, dtype=np.int64)
        self._terminated, self._truncated = np.zeros((2, self.num_envs), dtype=bool)
        self._return = np.zeros(self.num_envs)
        self._economics: list[Mapping[str, Any]] = [{} for _ in seeds]
        self._infos: list[Mapping[str, Any]] = [{} for _ in seeds]
        self._seen = [self._reset_one(i, int(seed) & SEED_MASK, options[i]) for i, seed in enumerate(seeds)]
        return self._observation()

    def step(self, actions: NDArray[np.floating]) -> Step:
        """Step every episode that is not over yet.

        Raises:
            DataError: the environment failed, or gave NaN, or what does not fit its space.
            ValueError: actions of another shape or not finite, or no reset before.
        """
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs, *self.action_low.shape) or not np.isfinite(actions).all():
            raise ValueError(f"{self.name}: wanted finite actions {(self.num_envs, *self.action_low.shape)}: {actions}")
        if not self._begun:
            raise ValueError(f"{self.name}: call reset first")
        clipped = self._in_bounds(actions)
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        for i in np.flatnonzero(~(self._terminated | self._truncated)):
            rewards[i] = self._step_one(int(i), clipped[i])
        self._return += rewards
        return self._observation(), rewards, self._terminated.copy(), self._truncated.copy(), {}

    def economics(self) -> dict[str, NDArray[np.float64]]:
        """`return` is the sum of rewards; the rest is what the environment itself reports, NaN where it does not."""
        columns = {name: [float(e.get(name, math.nan)) for e in self._economics] for name in METRICS}
        reported = {name: np.array(column, dtype=np.float64) for name, column in columns.items()}
        return reported | {"return": self._return.copy()}

    def render(self) -> NDArray[np.uint8] | None:
        """Pictures (N, H, W, 3), where the environment was made for it and draws any."""
        if not self._render:
            return None
        pictures = [env.render() for env in self._envs]
        if any(not isinstance(p, np.ndarray) or p.ndim != 3 for p in pictures):
            return None
        return np.stack(pictures).astype(np.uint8)  # type: ignore[arg-type]

    def close(self) -> None:
        """Close every copy."""
        for env in self._envs:
            env.close()

    def _make(self, make_one: Callable[..., gymnasium.Env[Any, Any]] | None) -> gymnasium.Env[Any, Any]:
        try:
            if make_one is not None:
                return make_one()
            # An id may name its module by "module:Env-v0" too, which is Gymnasium's own.
            mode: dict[str, Any] = {"render_mode": "rgb_array"} if self._render else {}
            return gymnasium.make(self.name, disable_env_checker=True, **mode)
        except Exception as error:  # noqa: BLE001 (foreign code)
            _refuse(self.name, error)

    def _task_of(self, i: int) -> str:
        said = self._infos[i].get("task")
        is_number = isinstance(said, int | np.integer) and not isinstance(said, bool)
        found = [str(said) if is_number else said]
        for name in TASK_ATTRIBUTES:
            with contextlib.suppress(AttributeError):
                found.append(self._envs[i].get_wrapper_attr(name))
        return next((str(task) for task in found if isinstance(task, str)), "")

    def _reset_one(self, i: int, seed: int, options: dict[str, Any] | None) -> Seen:
        given = {} if options is None else {"options": options}
        try:
            observation, info = self._envs[i].reset(seed=seed, **given)
        except Exception as error:  # foreign code may raise anything
            asked = f" with options={options}, which it may ignore but must take" if options else ""
            raise DataError(f"environment {self.name} failed on reset{asked}: {_line(error)}") from error
        self._infos[i] = info if isinstance(info, Mapping) else {}
        return self._layout.split(observation, 0)

    def _step_one(self, i: int, action: NDArray[Any]) -> float:
        self._steps[i] += 1
        try:
            observation, reward, terminated, truncated, info = self._envs[i].step(action)
            reward, economics = float(reward), info.get("economics", {})
        except Exception as error:  # foreign code may raise anything
            raise DataError(f"environment {self.name} failed at step {self._steps[i]}: {_line(error)}") from error
        if not math.isfinite(reward):
            raise DataError(f"environment {self.name} gave reward {reward} at step {self._steps[i]}")
        self._seen[i] = self._layout.split(observation, int(self._steps[i]))
        self._terminated[i] = bool(terminated)
        self._truncated[i] = bool(truncated) or self._steps[i] >= self.max_steps
        if isinstance(economics, Mapping):
            self._economics[i] = economics
        return reward

    def _in_bounds(self, actions: NDArray[np.floating]) -> NDArray[Any]:
        """Actions in the space's own type, clipped last: a bound rounded to single precision may lie outside it."""
        whole = np.issubdtype(self._actions.dtype, np.integer)
        limited = np.clip(np.rint(actions) if whole else actions, self._actions.low, self._actions.high)
        return np.clip(limited.astype(self._actions.dtype), self._actions.low, self._actions.high)

    def _observation(self) -> Observation:
        observation: Observation = {}
        if self.state_size:
            observation["state"] = np.stack([state for state, _ in self._seen if state is not None])
        if self.frame_shape is not None:
            observation["frames"] = np.stack([frame for _, frame in self._seen if frame is not None])
        return observation


def _load(environment_id: str) -> Any:
    """The object that `module:name` names, or None where the name is a Gymnasium id of that module."""
    if not is_plugin(environment_id):
        try:
            importlib.import_module(environment_id.partition(":")[0])
        except Exception as error:  # noqa: BLE001 (foreign code)
            _refuse(environment_id, error)
        return None
    target = load_plugin(environment_id, "environment.id")
    if not callable(target):
        raise ConfigError(f"environment.id={environment_id} is no class or function; name one of its module")
    return target


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _refuse(environment_id: str, error: Exception) -> NoReturn:
    if isinstance(error, PhasebError):
        raise error
    raise ConfigError(
        f"environment.id={environment_id} cannot be made ({_line(error)}); check the name, or install what it needs"
    ) from error
