"""All stages in order: real episodes in, a verdict out."""

from collections.abc import Sequence
from contextlib import ExitStack

from phaseb.config.root import Config
from phaseb.runs import report
from phaseb.runs.result import Callback, RunResult
from phaseb.runs.stages import STAGES
from phaseb.runtime import ray_session

STAGE_NAMES = [stage.name for stage in STAGES]


def run(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Run every stage, skipping those that are up to date; the result is the report's."""
    with ExitStack() as session:
        started = False
        for stage in STAGES:
            if not started and not stage.is_done(config):  # a run that is up to date needs no cluster
                session.enter_context(ray_session(config.resources))
                started = True
            stage.run(config, callbacks)
    return report.run(config, callbacks)
