"""Run all stages, or those of one command. Torch and Ray are imported where there is something to do."""

from collections.abc import Sequence

from phaseb.config.root import Config
from phaseb.pipeline import fingerprint
from phaseb.pipeline.result import Callback, RunResult
from phaseb.stages.registry import ATTRIBUTION, STAGES

STAGE_NAMES = tuple(stage.name for stage in STAGES)


def run(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Run every stage that is not up to date, then write the report; the result is the report's."""
    results = fingerprint.cached_results(config)
    if results is not None:
        _replay(config, callbacks)
        return RunResult(results, {"results": fingerprint.RESULTS, "page": fingerprint.PAGE})
    from phaseb.pipeline.graph import run_graph
    from phaseb.stages import report

    run_graph(STAGES, config, callbacks)
    written = report.run(config, callbacks)
    fingerprint.save_fingerprint(config)
    return written


def run_job(command: str, config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Run the stages of one command; the result is that of the stage of the same name."""
    from phaseb.pipeline.graph import run_graph

    return run_graph((*STAGES, ATTRIBUTION), config, callbacks, job=command)[command]


def _replay(config: Config, callbacks: Sequence[Callback]) -> None:
    """Show the stages of a run that is up to date."""
    done = fingerprint.cached_stages(config)
    for callback in callbacks:
        for stage in STAGES:
            if stage.enabled(config):
                callback.on_stage_start(stage.name)
                metrics, seconds = done[stage.name]["metrics"], done[stage.name]["seconds"]
                callback.on_stage_end(stage.name, metrics, seconds, skipped=True)
        callback.on_stage_start("report")
        callback.on_stage_end("report", {}, 0.0, skipped=True)
