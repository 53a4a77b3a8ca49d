"""The flywheel: generation after generation until a budget is spent or nothing is gained any more."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from phaseb.config.root import Config
from phaseb.errors import ClusterError
from phaseb.flywheel.collection import collect_batch, has_batch, watch_folder
from phaseb.flywheel.generation import run_generation
from phaseb.flywheel.history import History, lineage_digest
from phaseb.pipeline.result import Callback, RunResult
from phaseb.runtime import logs
from phaseb.runtime.ray_session import ray_session
from phaseb.stages.report import PAGE, tell_flywheel

MAX_FAILURES = 2
"""Failed generations in a row before the flywheel stops."""


def run(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Turn the flywheel in `run.dir` until it stops; a killed one goes on where it was.

    A generation that fails leaves what is shipped as it is; the first one's failure is the flywheel's.

    Raises:
        ConfigError: where the folder holds something else.
        DataError: where a finished generation was altered, or the first one fails by its data.
        ClusterError: where the cluster cannot do what was asked: run again.
    """
    wheel = FlywheelLoop(config, History.open(config), callbacks)
    with ExitStack() as session:
        while (reason := wheel.reason_to_stop()) is None:
            if not wheel.gather():
                reason = "no new files came"
                break
            wheel.turn(session)
    wheel.end(reason)
    return RunResult(tell_flywheel(wheel.history.store), {"page": PAGE, "flywheel": "flywheel.json"})


class FlywheelLoop:
    """A flywheel at work."""

    def __init__(self, config: Config, history: History, callbacks: Sequence[Callback]) -> None:
        self.config, self.history, self.callbacks = config, history, callbacks
        self._since = time.monotonic()
        self._up = False

    @property
    def number(self) -> int:
        """Of the next generation."""
        return len(self.history.generations)

    def reason_to_stop(self) -> str | None:
        """Why there is to be no further generation; None where there is."""
        plan, history = self.config.flywheel, self.history
        new = plan.num_episodes if plan.source == "environment" else plan.min_episodes
        if self.number >= plan.max_generations:
            return f"the budget of {plan.max_generations} generations is spent (flywheel.max_generations)"
        if self.number and plan.max_real_episodes and history.real_episodes() + new > plan.max_real_episodes:
            spent = history.real_episodes()
            return f"{spent} of {plan.max_real_episodes} real episodes are spent (flywheel.max_real_episodes)"
        if plan.max_hours and self._seconds() > plan.max_hours * 3600:
            return f"the budget of {plan.max_hours:g} hours is spent (flywheel.max_hours)"
        if history.failures >= MAX_FAILURES:
            return (
                f"{history.failures} generations in a row failed, the last one so: {history.generations[-1]['reason']}"
            )
        if history.without_gain >= plan.patience:
            return f"{history.without_gain} generations in a row brought no gain (flywheel.patience)"
        return None

    def gather(self) -> bool:
        """See that the next generation has its episodes; false where none came."""
        if has_batch(self.history, self.number):
            return True
        if self.config.flywheel.source == "folder":
            return watch_folder(self.config, self.history, self.number)
        return True  # collected within the turn, whose failure is a generation's

    def turn(self, session: ExitStack) -> None:
        """One generation, whose failure leaves what is shipped as it is."""
        if not self._up:
            session.enter_context(ray_session(self.config.resources))
            self._up = True
        number, history = self.number, self.history
        logs.event("generation starts", generation=number)
        try:
            record = self._generation(number)
        except ClusterError:
            raise
        except Exception as error:
            if history.shipped is None:
                raise
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            record = {
                "number": number,
                "state": "failed",
                "promoted": False,
                "reason": said,
                "kind": type(error).__name__,
            }
        if record["promoted"]:
            history.shipped = {"generation": number, "arm": record["arm"]}
        history.generations.append(record | {"shipped": history.shipped})
        self._save(None)
        logs.event("generation ends", generation=number, state=record["state"], promoted=record["promoted"])

    def end(self, reason: str) -> None:
        """Write why it stopped."""
        self._save(reason)

    def _generation(self, number: int) -> dict[str, Any]:
        if number and not has_batch(self.history, number):
            for callback in self.callbacks:
                callback.on_stage_start(f"{number} gather")
            started = time.monotonic()
            collect_batch(self.config, self.history, number)
            for callback in self.callbacks:
                callback.on_stage_end(f"{number} gather", {}, time.monotonic() - started, skipped=False)
        record = run_generation(self.config, self.history, number, self.callbacks)
        return record | {"digest": lineage_digest(self.history.run_of(number))}

    def _seconds(self) -> float:
        return self.history.seconds + time.monotonic() - self._since

    def _save(self, reason: str | None) -> None:
        self.history.seconds, self._since = self._seconds(), time.monotonic()
        self.history.ended_by = reason
        self.history.save()
