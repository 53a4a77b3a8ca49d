"""The training loop of one worker: steps, metrics, held-out looks, checkpoints; the same with Ray or without.

A checkpoint holds the learner's state and the metrics so far. Batches are drawn by step (see `seeding`), so whoever
goes on from a checkpoint makes the same updates as if nothing had happened.
"""

import time
from collections.abc import Callable

from phaseb.config.run import TrainingConfig
from phaseb.errors import DivergenceError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime import logs
from phaseb.runtime.storage import Store
from phaseb.training.async_checkpointer import AsyncCheckpointer
from phaseb.training.compile import compile_steps, precision
from phaseb.training.learner import Learner
from phaseb.training.prometheus import Meters
from phaseb.training.training_state import Progress, Report, read_progress

__all__ = ["Progress", "Report", "read_progress", "resume", "train"]

PREEMPTED_EVERY_S = 2.0
"""Seconds between checkpoints once it is known that the machine will be taken away."""
METERED_EVERY_S = 1.0


def train(
    learner: Learner,
    context: WorkerContext,
    config: TrainingConfig,
    store: Store,
    key: str,
    report: Report,
    *,
    preempted: Callable[[], bool] = lambda: False,
    stop: Callable[[], bool] = lambda: False,
    meters: Meters | None = None,
) -> Progress:
    """Train to the learner's last step, going on from the checkpoint in `store` where it carries the same key.

    Args:
        key: digest of config and data; a checkpoint under another key is ignored and overwritten.
        report: called with the metrics of every held-out look.
        preempted: whether this machine will be taken away; checkpoints then follow each other quickly.
        stop: whether to stop now; a checkpoint of this step is written first.

    Raises:
        DivergenceError: naming the step and the last good checkpoint.
        KeyboardInterrupt: where it was stopped.
    """
    meters = meters or Meters("", on=False)
    progress = resume(learner, store, key) or Progress(0, learner.num_steps, 0.0, [])
    clock = _Clock(progress.seconds, config.checkpoint_every_s, preempted)
    pace = _Pace(meters, progress.next_step)
    meters.started(progress.next_step, learner.num_steps)
    compile_steps(learner, config, context.device)
    how = "goes on" if progress.next_step else "starts"
    logs.event(f"training {how}", step=progress.next_step, num_steps=learner.num_steps)
    with AsyncCheckpointer(store, key, progress.next_step, meters) as checkpointer:
        for step in range(progress.next_step, learner.num_steps):
            with precision(config):
                metrics = _step(learner, step, checkpointer, store)
            last = step + 1 == learner.num_steps
            if last or (step + 1) % config.validate_every == 0:
                metrics = {**metrics, **learner.validate(step)}
                report({"step": float(step + 1), "num_steps": float(learner.num_steps), **metrics})
                meters.looked(metrics)
            if last or step % config.log_every == 0 or (step + 1) % config.validate_every == 0:
                progress.rows.append({"step": float(step + 1), "seconds": clock.total(), **metrics})
            progress.next_step, progress.seconds = step + 1, clock.total()
            pace.stepped(step + 1, last)
            if context.rank == 0:
                _save(checkpointer, learner, progress, clock, stop())
    return progress


def _step(learner: Learner, step: int, checkpointer: AsyncCheckpointer, store: Store) -> dict[str, float]:
    try:
        return learner.step(step)
    except DivergenceError as error:
        saved = checkpointer.wait()
        good = f"last good checkpoint: step {saved} in {store.root}" if saved else "no checkpoint before it"
        raise DivergenceError(f"{error}; {good}; lower the learning rate or clip harder") from error


def _save(checkpointer: AsyncCheckpointer, learner: Learner, progress: Progress, clock: "_Clock", stop: bool) -> None:
    if progress.complete or stop:
        checkpointer.save_final(learner, progress)
    elif clock.due():
        checkpointer.save(learner, progress)
    if stop and not progress.complete:
        logs.event("training stopped", step=progress.next_step)
        raise KeyboardInterrupt


def resume(learner: Learner, store: Store, key: str) -> Progress | None:
    """Load the checkpoint in `store` into the learner; None where there is none under this key."""
    found = read_progress(store, key)
    if found is None:
        return None
    state, progress = found
    learner.load_state_dict(state)
    return progress


class _Clock:
    def __init__(self, before: float, every_s: float, preempted: Callable[[], bool]) -> None:
        self._before, self._every_s, self._preempted = before, every_s, preempted
        self._start = self._last = time.monotonic()
        self._in_time = True

    def total(self) -> float:
        return self._before + time.monotonic() - self._start

    def due(self) -> bool:
        """Whether a checkpoint is due: every so often, and at once when it becomes known that time is short."""
        now, preempted = time.monotonic(), self._preempted()
        if preempted and self._in_time:
            self._in_time = False
            logs.event("this machine will be taken away")
        elif now - self._last < (min(PREEMPTED_EVERY_S, self._every_s) if preempted else self._every_s):
            return False
        self._last = now
        return True


class _Pace:
    """Tells the meters of steps, at most once a second: a meter costs more than a small step may."""

    def __init__(self, meters: Meters, step: int) -> None:
        self._meters, self._step, self._since = meters, step, time.monotonic()

    def stepped(self, step: int, last: bool) -> None:
        now = time.monotonic()
        if last or now - self._since >= METERED_EVERY_S:
            self._meters.stepped(step, now - self._since, step - self._step)
            self._step, self._since = step, now
