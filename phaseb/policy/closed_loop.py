"""Episodes of a policy in closed loop in an environment, recorded as latents.

N episodes, T steps, D latent dimensions, A action dimensions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.environment import Observation, VectorEnvironment
from phaseb.episodes.environment_wrapper import EnvironmentWrapper
from phaseb.episodes.trajectories import Trajectories
from phaseb.policy.checked_environment import GuardedEnvironment
from phaseb.policy.evaluation import OnlineEncoder
from phaseb.policy.trained_policy import ClosedLoopAct

Floats = NDArray[np.float32]


def play(
    act: ClosedLoopAct,
    encoder: OnlineEncoder,
    environment: VectorEnvironment,
    seeds: Sequence[int],
    num_steps: int,
    denormalise: Callable[[Floats], Floats],
    step_limit_s: float,
    noise_seeds: Sequence[int] | None = None,
) -> Trajectories:
    """Play one episode for each seed, for at most `num_steps` steps.

    Args:
        act: the policy.
        encoder: for N episodes.
        environment: of N episodes.
        seeds: N.
        num_steps: T; an episode that the environment ends earlier is padded.
        denormalise: from [-1, 1] to the environment's units.
        step_limit_s: seconds that the environment may take for a step.
        noise_seeds: of the sensor noise, for an environment that draws it apart.

    Raises:
        DataError: where the environment fails, does not answer, or gives NaN or Inf.
    """
    guarded = GuardedEnvironment(_Renoised(environment, noise_seeds) if noise_seeds else environment, step_limit_s)
    z, actions, rewards = [encoder.reset(guarded.reset(seeds))], [], []
    running, lengths = np.ones(len(seeds), bool), np.zeros(len(seeds), np.int64)
    ended = np.zeros(len(seeds), bool)
    steps = min(num_steps, environment.max_steps)
    for step in range(steps):
        chosen = act(z[-1], step)
        observation, reward, terminated, truncated, _ = guarded.step(step, denormalise(chosen))
        z.append(encoder.step(observation))
        actions.append(chosen)
        rewards.append(reward)
        lengths += running
        ended |= terminated & running
        running &= ~(terminated | truncated)
    last = np.arange(steps)[None] == lengths[:, None] - 1
    return to_trajectories(
        np.stack(z, 1), np.stack(actions, 1), np.stack(rewards, 1), (last & ended[:, None]).astype(np.float32), lengths
    )


def to_trajectories(
    z: Floats, actions: Floats, rewards: Floats, terminals: Floats, lengths: NDArray[np.int64]
) -> Trajectories:
    """Episodes padded from their ends on: the last latent repeated, no action, no reward."""
    steps = np.arange(rewards.shape[1])
    inside = steps[None] < lengths[:, None]
    kept = np.minimum(np.arange(z.shape[1])[None], lengths[:, None])
    names = tuple(f"{i}" for i in range(len(z)))
    return Trajectories(
        z=z[np.arange(len(z))[:, None], kept].astype(np.float32),
        actions=(actions * inside[..., None]).astype(np.float32),
        rewards=(rewards * inside).astype(np.float32),
        terminals=(terminals * inside).astype(np.float32),
        lengths=lengths,
        ids=names,
        splits=("",) * len(z),
    )


class _Renoised(EnvironmentWrapper):
    """An environment whose sensor noise is drawn from other seeds than its episodes."""

    def __init__(self, environment: VectorEnvironment, noise_seeds: Sequence[int]) -> None:
        super().__init__(environment)
        self._noise_seeds = list(noise_seeds)

    def reset(self, seeds: Sequence[int], *more: Any) -> Observation:
        return super().reset(seeds, self._noise_seeds)
