"""The environment that a config names, whoever wrote it."""

from phaseb.config.environment import EnvironmentConfig
from phaseb.episodes.environment import VectorEnvironment


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
