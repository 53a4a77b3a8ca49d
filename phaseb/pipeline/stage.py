"""A stage: a named step from files to files, with what it depends on. `graph` runs stages; nothing here needs Ray."""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phaseb.config.root import Config
from phaseb.pipeline.result import Report
from phaseb.pipeline.run_directory import digest_of, section_digests
from phaseb.runtime.storage import Store


def _ignore(metrics: Mapping[str, float]) -> None:
    return None


@dataclass(frozen=True)
class StageContext:
    """What a stage works with.

    Attributes:
        config: of the run.
        store: the run directory.
        key: digest of everything that the stage depends on.
        name: of the stage.
        progress: receives metrics while the stage works.
    """

    config: Config
    store: Store
    key: str
    name: str
    progress: Report = _ignore


Execute = Callable[[StageContext], dict[str, Any]]


@dataclass(frozen=True)
class LazyFunction:
    """A module's function, imported at the first call: a table of stages imports neither torch nor Ray."""

    module: str
    name: str = "execute"

    def __call__(self, context: StageContext) -> dict[str, Any]:
        found: dict[str, Any] = getattr(importlib.import_module(self.module), self.name)(context)
        return found


@dataclass(frozen=True)
class Stage:
    """A named step from files to files.

    Attributes:
        name: unique within a graph.
        sections: the config sections it depends on, beside `run.seed`.
        inputs: names of the stages whose outputs it reads.
        outputs: files and folders that it writes, relative to the run directory. No other stage writes them.
        execute: does the work in a process of its own and returns metrics. After a kill it is called again on the same
            folder.
        job: the command that runs it; empty: its name.
        computes: whether its own process is busy, so that a CPU is reserved for it. A stage that only waits for tasks
            of its own reserves none.
        trains: whether it trains on Ray Train workers where `resources.num_workers` asks for them.
        external_inputs: what it depends on beyond config and run directory (imported files), as JSON.
    """

    name: str
    sections: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    execute: Execute
    job: str = ""
    computes: bool = False
    trains: bool = False
    external_inputs: Callable[[Config], Any] = lambda config: None

    @property
    def command(self) -> str:
        """The command that runs this stage."""
        return self.job or self.name

    def key(self, config: Config, lineage: Mapping[str, Mapping[str, Any]]) -> str:
        """Digest of everything that the stage depends on.

        Args:
            config: of the run.
            lineage: entries of the stages in `run.json`, by name; those of the inputs are done.
        """
        sections = section_digests(config)
        return digest_of(
            {
                "stage": self.name,
                "seed": config.run.seed,
                "sections": {name: sections[name] for name in self.sections},
                "inputs": {name: lineage[name]["outputs"] for name in self.inputs},
                "external_inputs": self.external_inputs(config),
            }
        )


def needed_for(stages: Sequence[Stage], names: Iterable[str]) -> tuple[Stage, ...]:
    """The named stages of a graph and all whose outputs these read, directly or not, in the graph's order."""
    wanted = set(names)
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(stage.inputs)
    return tuple(stage for stage in stages if stage.name in wanted)
