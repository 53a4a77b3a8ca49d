"""Episodes by a named policy in any environment: `episodes.source=gymnasium`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from phaseb.collection.environments import make_environment
from phaseb.config.data import EnvironmentConfig
from phaseb.episodes.environment import Controller, VectorEnvironment, record
from phaseb.episodes.episode import Episode
from phaseb.errors import ConfigError
from phaseb.runtime.plugins import load_plugin
from phaseb.runtime.seeding import derive_seed, numpy_generator

AT_ONCE = 16  # copies of the environment in one process


def collect_gymnasium_episodes(
    config: EnvironmentConfig, seed: int, indices: Sequence[int], policy: str
) -> list[Episode]:
    """The episodes number `indices` of the data set `seed`; episode i depends on (config, policy, seed, i) alone.

    Raises:
        ConfigError: without an environment, or for a policy that cannot be made.
        DataError: where the environment fails.
    """
    found: list[Episode] = []
    for first in range(0, len(indices), AT_ONCE):
        part = indices[first : first + AT_ONCE]
        environment = make_environment(config, len(part), None)
        if environment is None:
            raise ConfigError("episodes.source=gymnasium acts in an environment: set environment.id")
        seeds = [derive_seed(seed, "episode", i) for i in part]
        tags = [{"policy": policy, "seed": str(s)} for s in seeds]
        found += record(environment, make_policy(policy, environment), seeds, [f"real-{i:06d}" for i in part], tags)
        environment.close()
    if config.observation == "frames":  # what only the built-in cell can be asked for
        found = [e if e.frames is None else replace(e, state=None) for e in found]
    return found


def make_policy(name: str, environment: VectorEnvironment) -> Controller:
    """The controller that a name stands for, made with the environment that it acts in.

    Raises:
        ConfigError: where module or class do not exist, or what is made cannot act.
    """
    if name == "random":
        return RandomPolicy(environment)
    made = load_plugin(name, "episodes.policy")(environment)
    if not callable(getattr(made, "reset", None)) or not callable(getattr(made, "act", None)):
        raise ConfigError(f"episodes.policy={name} has no reset(seeds) and act(observation)")
    return cast(Controller, made)


class RandomPolicy:
    """Actions drawn evenly between the environment's bounds, a stream of its own for each episode.

    Raises:
        ConfigError: for an environment whose actions have no bounds.
    """

    def __init__(self, environment: VectorEnvironment) -> None:
        self._low, self._high = environment.action_low, environment.action_high
        if not np.isfinite([self._low, self._high]).all():
            raise ConfigError(f"{environment.name} has actions without bounds; set episodes.policy=module:Class")
        self._streams: list[np.random.Generator] = []

    def reset(self, seeds: Sequence[int]) -> None:
        self._streams = [numpy_generator(seed, "random policy") for seed in seeds]

    def act(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        return np.stack([stream.uniform(self._low, self._high) for stream in self._streams]).astype(np.float32)
