"""One stage of a run: skipped when nothing changed, resumed when it was killed, recorded when it is done."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from phaseb import __version__
from phaseb.config.root import Config
from phaseb.errors import DataError
from phaseb.pipeline.ahead import Ahead
from phaseb.pipeline.machine import Machine
from phaseb.pipeline.requirements import preflight, tell
from phaseb.pipeline.result import Callback, RunResult
from phaseb.pipeline.run_directory import RunDirectory, digest_of, folder_digest, section_digests
from phaseb.pipeline.sizes import read_facts
from phaseb.runtime import logs
from phaseb.runtime.storage import Store
from phaseb.training.resident import training_session


@dataclass(frozen=True)
class StageContext:
    """What a stage works with."""

    config: Config
    store: Store
    key: str
    callbacks: Sequence[Callback]
    name: str
    ahead: Ahead = field(default_factory=Ahead)

    def progress(self, metrics: Mapping[str, float]) -> None:
        for callback in self.callbacks:
            callback.on_progress(self.name, metrics)


@dataclass(frozen=True)
class Stage:
    """A named step from files to files.

    Attributes:
        name: as the command line calls it.
        sections: the config sections it depends on, beside `run.seed`.
        inputs: names of the stages whose outputs it reads.
        outputs: files and folders that it writes, relative to the run directory.
        work: does it; returns metrics. It may be called again on the same folder after a kill.
        outside: what it depends on beyond config and run directory (imported files), as JSON.
    """

    name: str
    sections: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    work: Callable[[StageContext], dict[str, Any]]
    outside: Callable[[Config], Any] = lambda config: None

    def run(self, config: Config, callbacks: Sequence[Callback] = (), ahead: Ahead | None = None) -> RunResult:
        """Run the stage in the config's run directory, or skip it where it is up to date.

        Args:
            config, callbacks: of the run.
            ahead: what was begun for this stage and those that follow.

        Raises:
            DataError: where an earlier stage has not been run.
        """
        directory = RunDirectory.open(config)
        key = self._key(config, directory)
        before = directory.stage(self.name)
        for callback in callbacks:
            callback.on_stage_start(self.name)
        if before.get("state") == "done" and before["key"] == key:
            return self._end(before["metrics"], before["seconds"], callbacks, skipped=True)
        sized = _sized(self.name, config, directory.store)
        if before.get("key") != key:
            for output in self.outputs:
                directory.store.delete(output)
        started = time.monotonic()
        spent = float(before.get("seconds", 0.0)) if before.get("key") == key else 0.0
        entry = {"state": "started", "key": key, "version": __version__, "started": _now(), "seconds": spent,
                 "inputs": {name: directory.stage(name)["outputs"] for name in self.inputs}}  # fmt: skip
        directory.record(self.name, entry)
        logs.bind(run=directory.store.root, stage=self.name)
        logs.event("stage starts", resumed=before.get("key") == key)
        metrics = self.work(StageContext(sized, directory.store, key, callbacks, self.name, ahead or Ahead()))
        seconds = spent + time.monotonic() - started
        outputs = {output: folder_digest(directory.store, output) for output in self.outputs}
        directory.record(self.name, entry | {"state": "done", "ended": _now(), "seconds": seconds, "metrics": metrics,
                                             "outputs": outputs})  # fmt: skip
        logs.event("stage ends", seconds=round(seconds, 3))
        return self._end(metrics, seconds, callbacks, skipped=False)

    def is_done(self, config: Config) -> bool:
        """Whether the run directory holds this stage's results under this config.

        Raises:
            DataError: where an earlier stage has not been run.
        """
        directory = RunDirectory.open(config)
        key, before = self._key(config, directory), directory.stage(self.name)
        return before.get("state") == "done" and before["key"] == key

    def run_alone(self, config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
        """The same as a job of its own: with Ray up while it runs, if there is anything to do."""
        if self.is_done(config):
            return self.run(config, callbacks)
        preflight(config, None).require(self.name)
        with training_session(config.resources):
            result = self.run(config, callbacks)
        if self.name == "collect" and (facts := read_facts(Store.at(config.run.dir))) is not None:
            found = preflight(config, facts)
            tell(callbacks, [*found.lines(), *(str(need) for need in found.requirements if not need.met)])
        return result

    def _key(self, config: Config, directory: RunDirectory) -> str:
        sections = section_digests(config)
        stages = directory.lineage()["stages"]
        missing = [name for name in self.inputs if stages.get(name, {}).get("state") != "done"]
        if missing:
            raise DataError(f"{self.name} needs {', '.join(missing)} first: run `phaseb {missing[0]}` with this config")
        return digest_of({
            "stage": self.name, "seed": config.run.seed,
            "sections": {name: sections[name] for name in self.sections},
            "inputs": {name: stages[name]["outputs"] for name in self.inputs},
            "outside": self.outside(config),
        })  # fmt: skip

    def _end(self, metrics: dict[str, Any], seconds: float, callbacks: Sequence[Callback], skipped: bool) -> RunResult:
        for callback in callbacks:
            callback.on_stage_end(self.name, metrics, seconds, skipped)
        return RunResult(metrics, {output: output for output in self.outputs})


def _sized(name: str, config: Config, store: Store) -> Config:
    """The config with sizes that fit the episodes, once there are some; refused where this stage would fail."""
    facts = None if name == "collect" else read_facts(store)
    found = preflight(config, facts, Machine(None, None, None, None))
    found.require(name)
    return found.config


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
