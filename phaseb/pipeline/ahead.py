"""What later stages will ask for and what follows from what is there already, made while a training keeps one processor
busy: on a machine of two, the other would idle.

Nothing is written ahead: results lie in memory until their stage asks, and a run that goes on after a kill, or has no
processor to spare, makes them in that stage. What is computed is the same.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import torch

from phaseb.config.root import Config
from phaseb.config.run import ResourcesConfig
from phaseb.runtime import logs
from phaseb.runtime.ray_session import spare_cpus
from phaseb.runtime.storage import Store

Make = Callable[[Config, Store], Any]
FEW_STEPS = 100
"""A training of fewer takes less than the seconds that a process needs to start."""


@dataclass(frozen=True)
class HeadStart:
    """Something that can be made before its stage.

    Attributes:
        name: by which its stage asks.
        stage: that asks.
        make: out of config and run directory; a module-level function.
        wanted: whether the stage will ask, under a config.
    """

    name: str
    stage: str
    make: Make
    wanted: Callable[[Config], bool] = lambda config: True


@dataclass
class Ahead:
    """What was begun, by name."""

    _begun: dict[str, Any] = field(default_factory=dict)

    def begin(self, starts: Sequence[HeadStart], config: Config) -> None:
        """Begin all that are wanted, one after another, in one process, where a CPU is left beside a training's."""
        wanted = [start for start in starts if start.wanted(config)]
        if not wanted or not _has_room(config.resources):
            return
        # The actor goes, and gives its processor back, when it has done what it was asked: nobody else knows it.
        actor = ray.remote(num_cpus=config.resources.cpus_per_task)(AheadActor).remote()
        for start in wanted:
            self._begun[start.name] = actor.make.remote(start.make, config)

    def reference(self, name: str) -> Any:
        """Where it will be, for `made` in any process; None where it was not begun."""
        return self._begun.get(name)

    def result(self, name: str) -> Any:
        """It, waited for; None where it was not begun or failed: then the stage does it, and fails by its own words."""
        return made(self.reference(name))


class AheadActor:
    """Makes one thing after another."""

    def __init__(self) -> None:
        torch.set_num_threads(1)

    def make(self, make: Make, config: Config) -> Any:
        return make(config, Store.at(config.run.dir))


def made(reference: Any) -> Any:
    """What a reference stands for, waited for; None where there is none, or its making failed."""
    if reference is None:
        return None
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        logs.event("begun ahead, and failed", logging.WARNING, reason=str(error).strip().splitlines()[-1])
        return None


def _has_room(resources: ResourcesConfig) -> bool:
    return resources.num_tasks > 1 and spare_cpus(resources) >= resources.cpus_per_task
