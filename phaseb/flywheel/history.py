"""What a flywheel has done: `flywheel.json` in its folder, rewritten whole after every generation."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phaseb import __version__
from phaseb.config.root import Config
from phaseb.errors import ConfigError, DataError
from phaseb.pipeline.run_directory import OPERATIONAL, RunDirectory, folder_digest, section_digests
from phaseb.runtime.storage import Store

FORMAT = 1
FILE = "flywheel.json"


@dataclass
class History:
    """The generations so far, the policy that is shipped, and the work that it took.

    Attributes:
        generations: one record each, in order; `state` is `done` or `failed`.
        shipped: {generation, arm} of the last good policy; None before the first.
        seconds: of work, over all starts of the command.
        rejected: files of the folder that could not be taken, with the reason.
    """

    store: Store
    title: str
    sections: dict[str, str]
    generations: list[dict[str, Any]]
    shipped: dict[str, Any] | None = None
    seconds: float = 0.0
    rejected: list[dict[str, str]] | None = None
    ended_by: str | None = None

    @classmethod
    def open(cls, config: Config) -> "History":
        """The history of a config's flywheel, or a new one.

        Raises:
            ConfigError: where the folder holds a run, or a flywheel of another config and `run.on_change` is `refuse`.
            DataError: where a generation was altered after it ended.
        """
        store, sections = Store.at(config.run.dir), section_digests(config)
        if store.exists("run.json"):
            raise ConfigError(f"{store.root} holds a run; choose another run.dir for the flywheel")
        if not store.exists(FILE):
            return cls(store, config.report.title, sections, [], rejected=[])
        history = cls.read(store)
        changed = sorted(n for n in sections if n not in OPERATIONAL and history.sections.get(n, "") != sections[n])
        if changed and config.run.on_change == "refuse":
            raise ConfigError(
                f"{store.root} holds a flywheel of another config (different: {', '.join(changed)}); choose another "
                "run.dir, or let the generations to come use the new one with run.on_change=redo"
            )
        history.title, history.sections = config.report.title, sections
        history.check()
        return history

    @classmethod
    def read(cls, store: Store) -> "History":
        """The history in a folder."""
        tree = store.read_json(FILE)
        if not isinstance(tree, dict) or tree.get("format") != FORMAT:
            raise DataError(f"{store.path(FILE)} is damaged, or of another version of phaseb")
        fields = ("title", "sections", "generations", "shipped", "seconds", "rejected", "ended_by")
        try:
            return cls(store, **{name: tree[name] for name in fields})
        except KeyError as error:
            raise DataError(f"{store.path(FILE)} is damaged: it lacks {error}") from error

    def save(self) -> None:
        """Write the history, all or nothing."""
        self.store.write_json(
            {
                "format": FORMAT,
                "version": __version__,
                "title": self.title,
                "sections": self.sections,
                "generations": self.generations,
                "shipped": self.shipped,
                "seconds": self.seconds,
                "rejected": self.rejected,
                "ended_by": self.ended_by,
            },
            FILE,
        )

    def run_of(self, number: int) -> Store:
        """The run directory of a generation."""
        return self.store.folder("generations", f"{number:03d}")

    def batch_of(self, number: int) -> Store:
        """The episodes that a generation brought."""
        return self.store.folder("batches", f"{number:03d}")

    @property
    def done(self) -> list[dict[str, Any]]:
        return [g for g in self.generations if g["state"] == "done"]

    @property
    def without_gain(self) -> int:
        """Generations since the last promotion."""
        promoted = [i for i, g in enumerate(self.generations) if g.get("promoted")]
        return len(self.generations) - 1 - promoted[-1] if promoted else 0

    @property
    def failures(self) -> int:
        """Generations that failed, the last ones in a row."""
        count = 0
        for generation in reversed(self.generations):
            if generation["state"] != "failed":
                break
            count += 1
        return count

    def real_episodes(self) -> int:
        """All real episodes spent so far: recorded ones, and those of decisions."""
        recorded = self.done[-1]["episodes"]["real"] if self.done else 0
        return int(recorded + sum(g["episodes"]["spent"] for g in self.done))

    def check(self) -> None:
        """See that generations are what they were when they ended, and that the shipped policy is.

        Raises:
            DataError: naming the generation that was altered.
        """
        for generation in self.done:
            store = self.run_of(generation["number"])
            if lineage_digest(store) != generation["digest"]:
                raise DataError(f"{store.root} was altered after it ended; start anew elsewhere")
        if self.shipped is not None:
            store = self.run_of(self.shipped["generation"])
            stages = RunDirectory(store).lineage()["stages"]
            for stage, part in (("encode", "encoder"), ("policy", "policy")):
                if folder_digest(store, part) != stages[stage]["outputs"][part]:
                    raise DataError(f"{store.path(part)} was altered after it ended; start anew elsewhere")


def lineage_digest(store: Store) -> str:
    """Digest of what a run made and from what: its stages' keys and the digests of their outputs."""
    stages: Mapping[str, Any] = RunDirectory(store).lineage()["stages"]
    told = {name: [stage["key"], stage.get("outputs")] for name, stage in sorted(stages.items())}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
