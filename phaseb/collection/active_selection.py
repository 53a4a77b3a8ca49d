"""Where to collect next: starts from which the world model is least sure what the shipped policy would meet.

N starts, D latent dimensions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.collection.environments import make_environment
from phaseb.config.root import Config
from phaseb.dynamics.protocol import load_generator
from phaseb.dynamics.rollout import tensor_policy
from phaseb.episodes.control import read_control
from phaseb.episodes.tasks import read_tasks
from phaseb.errors import ConfigError
from phaseb.latents.model import EncoderModel
from phaseb.policy.trained_policy import load_policy
from phaseb.runtime.seeding import derive_seed, torch_generator
from phaseb.runtime.storage import Store

AT_ONCE = 64


def select_starts(config: Config, store: Store, number: int, count: int, candidates: int) -> list[int]:
    """Episode seeds for generation `number`: of `count * candidates` starts, those that would teach the model most.

    A start is looked at (its first observation, no step), then imagined: the world model rolls the shipped policy out
    from it, and what its members disagree about is what an episode from there would settle.

    Raises:
        ConfigError: without an environment.
    """
    seeds = [derive_seed(config.run.seed, "flywheel", number, i) for i in range(count * candidates)]
    doubt = disagreement(config, store, initial_latents(config, store, seeds))
    order = np.argsort(-doubt, kind="stable")[:count]
    return [seeds[i] for i in sorted(order.tolist())]


def initial_latents(config: Config, store: Store, seeds: Sequence[int]) -> NDArray[np.float32]:
    """(N, D) what the run's encoder says of the first observation after a reset with each seed."""
    bundle, found = EncoderModel.load(store.folder("encoder")), []
    for first in range(0, len(seeds), AT_ONCE):
        part = seeds[first : first + AT_ONCE]
        environment = make_environment(config.environment, len(part), read_control(store), read_tasks(store))
        if environment is None:
            raise ConfigError("starts are chosen in an environment: set environment.id, or flywheel.choose=random")
        try:
            found.append(bundle.online(len(part)).reset(environment.reset(part)))
        finally:
            environment.close()
    return np.concatenate(found)


def disagreement(config: Config, store: Store, z: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) mean disagreement of the world model along rollouts of the shipped policies from latents (N, D)."""
    model = load_generator(store.folder("dynamics", config.stored_generators[0]))
    arm = str(store.read_json("promotion.json")["shipped"])
    doubts = []
    for seed in range(config.arms.num_seeds):
        actor = load_policy(store.folder("policy", arm, str(seed)))
        generator = torch_generator(config.run.seed, "starts", seed)
        driven = tensor_policy(actor.closed_loop(), (len(z), actor.action_size))
        rolled = model.rollout(torch.from_numpy(z), driven, config.synthesis.horizon, generator)
        doubts.append(rolled.uncertainty.double().cpu().numpy().mean(1))
    return np.asarray(np.mean(doubts, axis=0))
