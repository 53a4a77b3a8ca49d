"""All stages in order: real episodes in, a verdict out.

What stages need (torch, Ray) is imported when there is something to do: a run that is up to date says so at once.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from phaseb.config.root import Config
from phaseb.errors import DataError
from phaseb.pipeline import fingerprint
from phaseb.pipeline.result import Callback, RunResult

if TYPE_CHECKING:
    from phaseb.pipeline.stage import Stage

STAGE_NAMES = ("collect", "encode", "bricks", "dynamics", "synthesize", "trust", "judge", "policy", "evaluate")


def run(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Run every stage, skipping those that are up to date; the result is the report's."""
    results = fingerprint.told_results(config)
    if results is not None:
        _tell(config, callbacks)
        return RunResult(results, {"results": fingerprint.RESULTS, "page": fingerprint.PAGE})
    from phaseb.pipeline.ahead import Ahead
    from phaseb.stages import report
    from phaseb.stages.registry import STAGES, head_starts
    from phaseb.training.resident import training_session

    with ExitStack() as session:
        started, ahead = False, Ahead()
        for stage in STAGES:
            if not started and not stage.is_done(config):  # a run that is up to date needs no cluster
                session.enter_context(training_session(config.resources))
                started = True
            if (starts := head_starts(stage, config)) and not stage.is_done(config):
                due = {other.name for other in STAGES if _is_due(other, config)}
                ahead.begin([start for start in starts if start.stage in due], config)
            stage.run(config, callbacks, ahead)
    told = report.run(config, callbacks)
    fingerprint.note(config)
    return told


def _is_due(stage: "Stage", config: Config) -> bool:
    """Whether a stage will have work to do: it has not been done on what there is now, or lacks what it reads."""
    try:
        return not stage.is_done(config)
    except DataError:
        return True


def _tell(config: Config, callbacks: Sequence[Callback]) -> None:
    done = fingerprint.stages_told(config)
    for callback in callbacks:
        for name in STAGE_NAMES:
            callback.on_stage_start(name)
            callback.on_stage_end(name, done[name]["metrics"], done[name]["seconds"], skipped=True)
        callback.on_stage_start("report")
        callback.on_stage_end("report", {}, 0.0, skipped=True)
