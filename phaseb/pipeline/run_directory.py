"""A run directory and its lineage: which stage made what, from which inputs, under which config."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from phaseb import __version__
from phaseb.config.load import dump_config
from phaseb.config.root import Config
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.storage import Store

FORMAT = 2
"""Version of the layout of a run directory. 1: before stages were a graph."""
OPERATIONAL = frozenset({"resources", "report", "training", "flywheel"})
"""Sections that change how a run is carried out or shown, not what it computes."""

TRIALS = "robot_trials.json"
"""What trials on the robot decided, beside the run's own promotion.json."""

ASKED_LATER = {"worth": "worth"}
"""Sections, and the stage outside of `phaseb run` that alone reads each: free to change until it has begun."""


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run; `run.json` in it says what is done."""

    store: Store

    @classmethod
    def open(cls, config: Config) -> "RunDirectory":
        """Open or make the run directory of a config.

        Raises:
            DataError: where another format wrote it.
            ConfigError: where it holds results of another config and `run.on_change` is `refuse`.
        """
        directory = cls(Store.at(config.run.dir))
        if directory.store.exists("run.json"):
            directory._check(config)
        directory._write_header(config)
        return directory

    @classmethod
    def existing(cls, path: str) -> "RunDirectory":
        """Open a run directory to read it."""
        directory = cls(Store.at(path))
        if not directory.store.exists("run.json"):
            raise DataError(f"{path} is not a run directory: it has no run.json")
        return directory

    def lineage(self) -> dict[str, Any]:
        """The content of `run.json`.

        Raises:
            DataError: where another format wrote it, or it is damaged.
        """
        lineage = self.store.read_json("run.json")
        if isinstance(lineage, dict) and isinstance(lineage.get("format"), int) and lineage["format"] != FORMAT:
            writer = f"phaseb {lineage['version']}" if lineage.get("version") else "the version that wrote it"
            raise DataError(
                f"{self.store.root} has run format {lineage['format']}, this version of phaseb reads format {FORMAT}; "
                f"choose another run.dir, or use {writer} for this one"
            )
        if not (isinstance(lineage, dict) and {"format", "stages", "sections"} <= set(lineage)):
            raise DataError(f"{self.store.path('run.json')} is damaged; choose another run.dir, or delete this one")
        return dict(lineage)

    def stage(self, name: str) -> dict[str, Any]:
        """The lineage of one stage; empty where it never started."""
        return dict(self.lineage()["stages"].get(name, {}))

    def record(self, name: str, entry: Mapping[str, Any]) -> None:
        """Write the lineage of one stage."""
        lineage = self.lineage()
        lineage["stages"][name] = dict(entry)
        self.store.write_json(lineage, "run.json")

    def retire(self, kept: Collection[str]) -> None:
        """Delete the outputs and the lineage of every stage that is not among those kept."""
        lineage = self.lineage()
        retired = [name for name in lineage["stages"] if name not in kept]
        for name in retired:
            for output in lineage["stages"].pop(name).get("outputs", {}):
                self.store.delete(*output.split("/"))
        if retired:
            self.store.write_json(lineage, "run.json")

    def _check(self, config: Config) -> None:
        lineage = self.lineage()
        old, new = lineage["sections"], section_digests(config)
        free = OPERATIONAL | {name for name, stage in ASKED_LATER.items() if stage not in lineage["stages"]}
        changed = sorted(name for name in new if name not in free and old.get(name, new[name]) != new[name])
        finished = any(stage.get("state") == "done" for stage in lineage["stages"].values())
        if changed and finished and config.run.on_change == "refuse":
            raise ConfigError(
                f"{self.store.root} holds a run of another config (different: {', '.join(changed)}); "
                "choose another run.dir, or redo what changed with run.on_change=redo"
            )

    def _write_header(self, config: Config) -> None:
        stages = self.lineage()["stages"] if self.store.exists("run.json") else {}
        header = {
            "format": FORMAT,
            "version": __version__,
            "seed": config.run.seed,
            "config_digest": digest_of(config.model_dump(mode="json")),
            "sections": section_digests(config),
            "opened": datetime.now(UTC).isoformat(timespec="seconds"),
            "stages": stages,
        }
        self.store.write_text(dump_config(config), "config.yaml")
        self.store.write_json(header, "run.json")


def read_decision(store: Store) -> dict[str, Any]:
    """The content of promotion.json; where trials on the robot decided since, with their outcome in its place.

    Raises:
        DataError: where nothing was decided.
    """
    decided: dict[str, Any] = store.read_json("promotion.json")
    if not store.exists(TRIALS):
        return decided
    trials = store.read_json(TRIALS)
    evaluated = store.read_json("run.json")["stages"].get("evaluate", {}).get("key")
    if trials["evaluate_key"] != evaluated:  # the policies are others since
        return decided
    return decided | {name: trials[name] for name in ("promoted", "shipped", "reason", "method")}


def digest_of(value: Any) -> str:
    """Hex digest of anything that JSON holds."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def section_digests(config: Config) -> dict[str, str]:
    """A digest for each section; the run's own leaves out where it lives and what may be redone."""
    sections = config.model_dump(mode="json")
    sections["run"] = {"seed": config.run.seed}
    return {name: digest_of(value) for name, value in sections.items()}


def folder_digest(store: Store, *parts: str) -> str:
    """Digest over the names and bytes of a file or a folder's finished files (progress/ and hidden ones left out)."""
    if store.is_file(*parts):
        return hashlib.sha256(store.read_bytes(*parts)).hexdigest()
    entries = {
        name: hashlib.sha256(store.read_bytes(*parts, name)).hexdigest()
        for name in store.names(*parts)
        if not name.startswith(".")
    }
    entries |= {name + "/": folder_digest(store, *parts, name) for name in store.folders(*parts) if name != "progress"}
    return digest_of(entries)
