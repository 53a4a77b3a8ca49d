"""Write the report of a folder: a run (results.json and its page), a flywheel, or two runs side by side."""

import posixpath
from collections.abc import Sequence
from typing import Any

import yaml

from phaseb.config.root import Config
from phaseb.config.run import ReportConfig
from phaseb.errors import ConfigError, DataError
from phaseb.pipeline.result import Callback, RunResult
from phaseb.pipeline.run_directory import RunDirectory
from phaseb.report.animation import films
from phaseb.report.compare import RunSummary, compare, comparison_page
from phaseb.report.figures import figures
from phaseb.report.flywheel import flywheel_page, flywheel_summary
from phaseb.report.results import collect_results
from phaseb.report.run_page import render
from phaseb.runtime.storage import Store

NUM_PLOTTED = 40
"""Episodes drawn in the latent clouds."""

PAGE = "report/index.html"


def write_results(store: Store, config: ReportConfig) -> dict[str, Any]:
    """Write results.json and the page of a finished run; returns the results."""
    results = collect_results(store)
    store.write_json(results, "results.json")
    drawn = figures(store, results, NUM_PLOTTED)
    store.write_text(render(config.title, results, drawn, films(store)), *PAGE.split("/"))
    return results


def run(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Write the report of the config's run directory (cheap, so it is always written anew)."""
    directory = RunDirectory.open(config)
    for callback in callbacks:
        callback.on_stage_start("report")
    results = write_results(directory.store, config.report)
    for callback in callbacks:
        callback.on_stage_end("report", {}, 0.0, skipped=False)
    return RunResult(results, {"results": "results.json", "page": PAGE})


def tell_flywheel(store: Store) -> dict[str, Any]:
    """Write the page of a flywheel; returns what it says."""
    tree = store.read_json("flywheel.json")
    store.write_text(flywheel_page(tree), *PAGE.split("/"))
    return flywheel_summary(tree)


def rewrite_report(folders: Sequence[str]) -> dict[str, Any]:
    """Write the page of a run or a flywheel again, or that of two runs side by side.

    Returns:
        what the page says, and its path under `page`.

    Raises:
        ConfigError: for more than two folders, for a study, or for a flywheel compared with something.
        DataError: where a folder is neither a run nor a flywheel, or its run has no results yet.
    """
    if len(folders) > 2:
        raise ConfigError(f"one folder is told, two runs are compared; {len(folders)} were given")
    stores = [Store.at(folder) for folder in folders]
    kinds = ["study" if s.exists("study.json") else "flywheel" if s.exists("flywheel.json") else "" for s in stores]
    if len(folders) == 2:
        for folder, kind in zip(folders, kinds, strict=True):
            if kind:
                raise ConfigError(f"{folder} is a {kind}; only runs are compared")
        return _compare(folders, [RunDirectory.existing(folder).store for folder in folders])
    if kinds[0] == "flywheel":
        return tell_flywheel(stores[0]) | {"page": stores[0].path(*PAGE.split("/"))}
    if kinds[0] == "study":
        raise ConfigError(
            f"{folders[0]} is a study: its result is in result.json, and "
            f"`optuna-dashboard sqlite:///{folders[0]}/study.db` shows its trials"
        )
    store = RunDirectory.existing(folders[0]).store
    return write_results(store, _shown(store)) | {"page": store.path(*PAGE.split("/"))}


def _compare(folders: Sequence[str], stores: Sequence[Store]) -> dict[str, Any]:
    """The comparison, written into the first run's folder."""
    names = _names(folders)
    first, second = (RunSummary.read(n, s, collect_results(s)) for n, s in zip(names, stores, strict=True))
    compared = compare(first, second)
    page = ("report", f"against-{names[1].replace('/', '-')}.html")
    stores[0].write_text(comparison_page(first, second, compared), *page)
    return compared | {"page": stores[0].path(*page)}


def _names(folders: Sequence[str]) -> list[str]:
    """The folders' last parts; as much of their paths as it takes to tell them apart."""
    paths = [posixpath.normpath(folder) for folder in folders]
    if paths[0] == paths[1]:
        raise ConfigError(f"{folders[0]} cannot be compared with itself")
    for parts in range(1, 1 + max(path.count("/") for path in paths) + 1):
        names = ["/".join(path.split("/")[-parts:]) for path in paths]
        if names[0] != names[1]:
            return names
    return paths


def _shown(store: Store) -> ReportConfig:
    """How the run was told the first time."""
    tree = yaml.safe_load(store.read_text("config.yaml"))
    try:
        return ReportConfig.model_validate(tree.get("report", {}))
    except ValueError as error:
        raise DataError(f"{store.path('config.yaml')} is of another version of phaseb") from error
