"""Play all policies of a run in models that are fitted for this alone, where there is no environment."""

from collections.abc import Callable

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from phaseb.config.root import Config
from phaseb.dynamics.model_returns import HeldOutError, ModelReturns, member_returns
from phaseb.dynamics.rollout import Policy
from phaseb.episodes.trajectories import Trajectories
from phaseb.policy.trained_policy import ClosedLoopAct, load_policy
from phaseb.runtime.ray_tasks import get_result
from phaseb.runtime.storage import Store
from phaseb.stages.held_out import Runs

NUM_MEMBERS = 4
"""Models that every policy is played in."""


def begin_model_returns(config: Config, store: Store, runs: Runs, recorded: Trajectories) -> Callable[[], ModelReturns]:
    """Begin to fit and play, each member in a Ray task; the returned function waits for the result.

    Args:
        recorded: the episodes that members are fitted to, and that policies start from.
    """
    horizon = min(config.synthesis.horizon, int(recorded.lengths.max()))
    task = ray.remote(num_cpus=config.resources.cpus_per_task)(_play)
    data = ray.put(recorded)
    waiting = [task.remote(config, store, runs, data, horizon, member) for member in range(NUM_MEMBERS)]

    def result() -> ModelReturns:
        made = [get_result(reference) for reference in waiting]
        return ModelReturns(np.stack([values for values, _ in made], 1), tuple(error for _, error in made), horizon)

    return result


def _play(
    config: Config, store: Store, runs: Runs, recorded: Trajectories, horizon: int, member: int
) -> tuple[NDArray[np.float64], HeldOutError]:
    torch.set_num_threads(1)
    policies = [_policy(load_policy(store.folder("policy", arm, str(seed))).closed_loop()) for arm, seed in runs]
    return member_returns(config.dynamics.gp, recorded, policies, horizon, config.run.seed, member)


def _policy(act: ClosedLoopAct) -> Policy:
    return lambda z, step: torch.from_numpy(act(z.numpy(), step))
