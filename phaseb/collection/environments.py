"""The environment that a config names, whoever wrote it."""

from typing import Any

from phaseb.config.data import EnvironmentConfig
from phaseb.episodes.environment import VectorEnvironment


def shown_by(environment: VectorEnvironment) -> dict[str, Any]:
    """What an environment shows and takes, by the names of `DataFacts`."""
    return {
        "state_size": environment.state_size,
        "frame_shape": environment.frame_shape,
        "action_size": len(environment.action_low),
    }


def make_environment(config: EnvironmentConfig, num_envs: int) -> VectorEnvironment | None:
    """The environment of a config for `num_envs` episodes side by side; None where there is none (`id: none`).

    Raises:
        ConfigError: where it cannot be made; names what is wrong.
    """
    if config.id == "none":
        return None
    if config.id == "workcell":
        from phaseb import workcell

        return workcell.make(config, num_envs)
    from phaseb.policy import gym_environment

    return gym_environment.make(config, num_envs)
