"""What a study searches: a job of the pipeline as data, a learner, and the real metric measured on dev episodes."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from phaseb.config.load import nearest
from phaseb.config.root import Config
from phaseb.errors import ConfigError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.pipeline.result import Callback
from phaseb.runtime.plugins import load_plugin
from phaseb.training.learner import Learner

OBJECTIVES = {
    "dynamics": "phaseb.tuning.dynamics:DynamicsObjective",
    "policy": "phaseb.tuning.policy:PolicyObjective",
}


class Objective(Protocol):
    """A job as a search sees it. Its learner is the job's own, made by the job's own code.

    Attributes:
        sections: dotted prefixes of the settings that change what the job does.
        steps: dotted path of the setting that holds the number of optimiser steps.
        changes: dotted path of the setting that holds changes on the way (`[{at: share, set: {name: value}}]`, names
            below the same section), which population-based training writes; empty where the job has none.
    """

    sections: tuple[str, ...]
    steps: str
    changes: str

    def metrics(self, config: Config) -> Mapping[str, str]:
        """The metrics that `measure` gives, each with what it means."""

    def prepare(self, config: Config, callbacks: Sequence[Callback]) -> Any:
        """What every trial reads, once: earlier stages are run where they are not up to date."""

    def make_learner(self, config: Config, data: Any, context: WorkerContext) -> Learner:
        """The learner of the job under a trial's config."""

    def measure(self, learner: Any, config: Config, data: Any, seed: int, split: str = "dev") -> dict[str, float]:
        """The real metrics of a learner as it is now, cheap enough to ask a few times a trial.

        `split` is `test` once only, at the end of the runs that confirm the winner.
        """


def home_of(job: str) -> str:
    """The folder from which one's own objective is imported here; empty for the program's own."""
    if job in OBJECTIVES:
        return ""
    top = importlib.import_module(job.partition(":")[0].partition(".")[0])
    file = Path(getattr(top, "__file__", None) or next(iter(top.__path__)))
    return str(file.parent.parent if file.name == "__init__.py" else file.parent)


def find_objective(job: str, home: str = "") -> Objective:
    """The objective of a job by its name, or `module:Class` of one's own; `home` is a folder to look in too.

    Raises:
        ConfigError: where there is none, with the nearest name.
    """
    place = OBJECTIVES.get(job, job)
    if ":" not in place:
        raise ConfigError(
            f"job: {job!r} cannot be searched{nearest(job, list(OBJECTIVES))}; there are {', '.join(OBJECTIVES)}, or "
            "module:Class of your own"
        )
    if home and home not in sys.path:
        sys.path.append(home)
    objective: Objective = load_plugin(place, "job")()
    return objective
