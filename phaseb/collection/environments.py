"""The environment that a config names, whoever wrote it."""

from typing import Any

from phaseb.config.data import EnvironmentConfig
from phaseb.episodes.control import Control
from phaseb.episodes.control_environment import ControlEnvironment
from phaseb.episodes.environment import VectorEnvironment
from phaseb.episodes.task_environment import TaskEnvironment
from phaseb.episodes.tasks import Tasks


def shown_by(environment: VectorEnvironment) -> dict[str, Any]:
    """What an environment shows and takes, by the names of `DataFacts`."""
    return {
        "state_size": environment.state_size,
        "frame_shape": environment.frame_shape,
        "action_size": len(environment.action_low),
    }


def make_environment(
    config: EnvironmentConfig, num_envs: int, control: Control | None, tasks: Tasks = (), frames: bool = True
) -> VectorEnvironment | None:
    """The environment of a config for `num_envs` episodes side by side; None where there is none (`id: none`).

    Args:
        config: what to make; `max_steps` counts steps of control.
        num_envs: episodes side by side.
        control: how steps of control are made of the environment's steps; None where they are the same.
        tasks: whose condition the state ends with; empty for none.
        frames: false where nobody looks at frames beside states: the built-in cell then draws none, which saves time.

    Raises:
        ConfigError: where it cannot be made; names what is wrong.
    """
    if config.id == "none":
        return None
    whole = config if control is None else config.model_copy(update={"max_steps": config.max_steps * control.rows})
    if not frames and whole.observation == "both":
        whole = whole.model_copy(update={"observation": "state"})
    environment = _make(whole, num_envs)
    if tasks:
        environment = TaskEnvironment(environment, tasks)
    return environment if control is None else ControlEnvironment(environment, control)


def _make(config: EnvironmentConfig, num_envs: int) -> VectorEnvironment:
    """The environment in its own steps."""
    if config.id == "workcell":
        from phaseb import workcell

        return workcell.make(config, num_envs)
    from phaseb.policy import gym_environment

    return gym_environment.make(config, num_envs)
