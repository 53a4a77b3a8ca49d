"""Run all stages, or those of one command. Torch and Ray are imported where there is something to do."""

from collections.abc import Sequence

from phaseb.config.root import Config
from phaseb.pipeline import fingerprint
from phaseb.pipeline.result import Callback, RunResult
from phaseb.pipeline.run_directory import RunDirectory
from phaseb.pipeline.sizes import fitted
from phaseb.runtime.storage import Store
from phaseb.stages.registry import build_graph


def stage_names(config: Config) -> tuple[str, ...]:
    """The stages of a run under a config."""
    return tuple(stage.name for stage in build_graph(_fitted(config)))


def run(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Run every stage that is not up to date, then write the report; the result is the report's."""
    results = fingerprint.cached_results(config, build_graph(_fitted(config)))
    if results is not None:
        _replay(config, callbacks)
        return RunResult(results, {"results": fingerprint.RESULTS, "page": fingerprint.PAGE})
    from phaseb.pipeline.graph import run_graph
    from phaseb.stages import report

    RunDirectory.open(config).retire([stage.name for stage in build_graph(config, attribution=True)])
    run_graph(build_graph(config), config, callbacks, replan=build_graph)
    written = report.run(config, callbacks)
    fingerprint.save_fingerprint(config, build_graph(_fitted(config)))
    return written


def run_job(command: str, config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Run the stages of one command. The metrics of `dynamics` are by generator."""
    from phaseb.pipeline.graph import run_graph

    done = run_graph(build_graph(_fitted(config), attribution=True), config, callbacks, job=command)
    if command in done:
        return done[command]
    parts = {name.removeprefix(f"{command}/"): result.metrics for name, result in done.items()}
    return RunResult(parts, {path: path for result in done.values() for path in result.outputs})


def run_in_model(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Play the policies in the generators (and in physics, where there is any), without the stage `evaluate`."""
    from phaseb.pipeline.graph import run_graph

    stages = [stage for stage in build_graph(_fitted(config)) if stage.name != "evaluate"]
    run_graph(stages, config, callbacks, job="evaluate")
    found = RunDirectory.open(config).store.read_json("closed_loop.json")
    return RunResult(found, {"closed_loop": "closed_loop.json"})


def _fitted(config: Config) -> Config:
    """The config as the episodes of its run directory fit it: they decide which arms and stages there are."""
    return fitted(config, Store.at(config.run.dir))


def _replay(config: Config, callbacks: Sequence[Callback]) -> None:
    """Show the stages of a run that is up to date."""
    done = fingerprint.cached_stages(config)
    for callback in callbacks:
        for name in stage_names(config):
            callback.on_stage_start(name)
            callback.on_stage_end(name, done[name]["metrics"], done[name]["seconds"], skipped=True)
        callback.on_stage_start("report")
        callback.on_stage_end("report", {}, 0.0, skipped=True)
