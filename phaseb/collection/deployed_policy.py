"""The policies that a run ships, at work: in the place of the operator, collecting episodes.

N episodes, A action dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.collection.environments import make_environment
from phaseb.collection.gymnasium import AT_ONCE
from phaseb.config.data import EnvironmentConfig
from phaseb.episodes.actions import ActionScale, read_action_scale
from phaseb.episodes.control import read_control
from phaseb.episodes.environment import record
from phaseb.episodes.episode import Episode
from phaseb.episodes.shards import read_episodes
from phaseb.episodes.tasks import read_tasks
from phaseb.errors import ConfigError
from phaseb.latents.model import EncoderModel
from phaseb.policy.behavior_metrics import snapped, two_levels
from phaseb.policy.trained_policy import load_policy
from phaseb.runtime.seeding import numpy_generator
from phaseb.runtime.storage import Store


@dataclass(frozen=True)
class DeployedPolicySpec:
    """Who acts: the policies of one arm of a run, in turn.

    Attributes:
        store: of the run directory.
        exploration: standard deviation of noise on their actions, of which [-1, 1] is the range.
    """

    store: Store
    arm: str
    num_seeds: int
    exploration: float = 0.0


class PolicyController:
    """A `Controller`: encoder and actor of one policy, with noise that follows from each episode's seed.

    A switch, an action that was recorded at two levels only, such as a gripper's, is put to one of them: noise would
    leave it between, and those who learn from the episodes would no longer see that it is one.
    """

    def __init__(self, crew: DeployedPolicySpec, seed: int, scale: ActionScale) -> None:
        self._bundle = EncoderModel.load(crew.store.folder("encoder"))
        self._actor = load_policy(crew.store.folder("policy", crew.arm, str(seed)))
        self._scale, self._exploration, self._step = scale, crew.exploration, 0
        self._act = self._actor.closed_loop()
        # As they were recorded, to the bit: in the machine's own units.
        episodes = read_episodes(crew.store.folder("episodes"), ("train",), frames=False)
        recorded = [e.actions for e in episodes if e.actions is not None]
        self._levels = two_levels(np.concatenate([np.zeros((0, self._actor.action_size)), *recorded]))

    def reset(self, seeds: Sequence[int]) -> None:
        self._encoder, self._step = self._bundle.online(len(seeds)), 0
        self._noise = [numpy_generator(seed, "exploration") for seed in seeds]

    def act(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        z = self._encoder.step(observation) if self._step else self._encoder.reset(observation)
        actions = self._act(z, self._step)
        self._step += 1
        noise = np.stack([stream.standard_normal(actions.shape[1]) for stream in self._noise])
        return snapped(self._scale.denormalise(actions + self._exploration * noise), self._levels)


def collect_by_policy(
    config: EnvironmentConfig, crew: DeployedPolicySpec, wanted: Sequence[tuple[str, int, int]]
) -> list[Episode]:
    """Episodes by a run's policies, in order; each depends on (config, policy, its seed) alone.

    Args:
        wanted: (id, episode seed, policy seed) of each.

    Raises:
        ConfigError: without an environment.
        DataError: where the environment fails.
    """
    torch.set_num_threads(1)
    made: dict[str, Episode] = {}
    for seed in sorted({s for _, _, s in wanted}):
        mine = [(name, start) for name, start, by in wanted if by == seed]
        for first in range(0, len(mine), AT_ONCE):
            part = mine[first : first + AT_ONCE]
            for episode in _record(config, crew, seed, part):
                made[episode.id] = episode
    return [made[name] for name, _, _ in wanted]


def _record(
    config: EnvironmentConfig, crew: DeployedPolicySpec, seed: int, part: Sequence[tuple[str, int]]
) -> list[Episode]:
    environment = make_environment(config, len(part), read_control(crew.store), read_tasks(crew.store))
    if environment is None:
        raise ConfigError("a policy collects in an environment: set environment.id, or flywheel.source=folder")
    scale = read_action_scale(crew.store) or ActionScale.of_environment(
        environment.action_low, environment.action_high, environment.name
    )
    tags = [{"policy": f"{crew.arm}/{seed}", "seed": str(start)} for _, start in part]
    names, starts = [name for name, _ in part], [start for _, start in part]
    try:
        found = record(environment, PolicyController(crew, seed, scale), starts, names, tags)
    finally:
        environment.close()
    if config.observation == "frames":  # what only the built-in cell can be asked for
        found = [e if e.frames is None else replace(e, state=None) for e in found]
    return found
