"""The environment that a config names, whoever wrote it."""

import importlib

from phaseb.config.environment import EnvironmentConfig
from phaseb.episodes.environment import VectorEnvironment
from phaseb.errors import ConfigError


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


def load_class(name: str) -> type:
    """The class of `module:Class`.

    Raises:
        ConfigError: where module or class do not exist.
    """
    module, _, attribute = name.partition(":")
    try:
        found: type = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{name} cannot be loaded: {error}") from error
    return found
