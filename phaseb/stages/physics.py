"""The environment of a run with the run's encoder and action scale: where its policies act."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phaseb.collection.environments import make_environment
from phaseb.config.root import Config
from phaseb.episodes.actions import ActionScale, read_action_scale
from phaseb.episodes.control import read_control
from phaseb.episodes.environment import VectorEnvironment
from phaseb.episodes.tasks import read_tasks
from phaseb.errors import ConfigError
from phaseb.latents.model import EncoderModel
from phaseb.policy.evaluation import OnlineEncoder
from phaseb.runtime.storage import Store


class Physics:
    """The environment of a config for `size` episodes side by side; a context manager that closes it.

    Raises:
        ConfigError: where there is none, or it cannot be made.
    """

    def __init__(self, config: Config, store: Store, size: int) -> None:
        self.bundle = EncoderModel.load(store.folder("encoder"))
        frames = self.bundle.spec.frame_shape is not None
        environment = make_environment(config.environment, size, read_control(store), read_tasks(store), frames)
        if environment is None:
            raise ConfigError("environment.id=none has no physics to measure a policy in")
        self.environment: VectorEnvironment = environment
        self.encoder: OnlineEncoder = self.bundle.online(size)
        self._store = store

    @property
    def denormalise(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """From [-1, 1] to the environment's units."""
        return action_scale(self._store, self.environment).denormalise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.environment.close()


def action_scale(store: Store, environment: Any) -> ActionScale:
    """The scale of a run's recorded actions; the environment's own where none was recorded."""
    return read_action_scale(store) or ActionScale.of_environment(
        environment.action_low, environment.action_high, environment.name
    )
