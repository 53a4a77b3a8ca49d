"""Tell the run: results.json with every number, and one self-contained page."""

from collections.abc import Sequence
from typing import Any

from phaseb.config.root import Config
from phaseb.report.figures import figures
from phaseb.report.film import films
from phaseb.report.page import render
from phaseb.report.results import collect_results
from phaseb.runs.directory import RunDirectory
from phaseb.runs.result import Callback, RunResult
from phaseb.storage import Store

PAGE = "report/index.html"


def tell(store: Store, title: str, num_plotted: int) -> dict[str, Any]:
    """Write results.json and the page of a finished run; returns the results."""
    results = collect_results(store)
    store.write_json(results, "results.json")
    store.write_text(render(title, results, figures(store, results, num_plotted), films(store)), *PAGE.split("/"))
    return results


def run(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Write the report of the config's run directory (cheap, so it is always written anew)."""
    directory = RunDirectory.open(config)
    for callback in callbacks:
        callback.on_stage_start("report")
    results = tell(directory.store, config.report.title, config.report.num_plotted)
    for callback in callbacks:
        callback.on_stage_end("report", {}, 0.0, skipped=False)
    return RunResult(results, {"results": "results.json", "page": PAGE})


def retell(runs: Sequence[str]) -> dict[str, Any]:
    """Write the page of a run directory again."""
    directory = RunDirectory.existing(runs[0])
    results = tell(directory.store, "phaseb", 40)
    return results | {"page": directory.store.path(*PAGE.split("/"))}
