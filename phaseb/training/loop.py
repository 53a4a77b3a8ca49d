"""The training loop of one worker: steps, metrics, held-out looks, checkpoints; the same with Ray or without.

A checkpoint holds the learner's state and the metrics so far. Batches are drawn by step (see `seeding`), so whoever
goes on from a checkpoint makes the same updates as if nothing had happened.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from phaseb.checkpoint import flatten, load_checkpoint, save_checkpoint, unflatten
from phaseb.config.run import TrainingConfig
from phaseb.data_parallel import LearnerContext
from phaseb.errors import DivergenceError
from phaseb.storage import Store
from phaseb.training.learner import Learner

Report = Callable[[Mapping[str, float]], None]


@dataclass
class Progress:
    """How far a training came: the next step to make of how many, seconds spent, rows of metrics."""

    next_step: int
    num_steps: int
    seconds: float
    rows: list[dict[str, float]]

    @property
    def complete(self) -> bool:
        return self.next_step >= self.num_steps


def train(learner: Learner, context: LearnerContext, config: TrainingConfig, store: Store, key: str,
          report: Report) -> Progress:  # fmt: skip
    """Train to the learner's last step, going on from the checkpoint in `store` where it carries the same key.

    Args:
        key: digest of config and data; a checkpoint under another key is ignored and overwritten.
        report: called with the metrics of every held-out look.

    Raises:
        DivergenceError: naming the step and the last good checkpoint.
    """
    progress = resume(learner, store, key) or Progress(0, learner.num_steps, 0.0, [])
    clock = _Clock(progress.seconds, config.checkpoint_every_s)
    saved = progress.next_step
    for step in range(progress.next_step, learner.num_steps):
        try:
            metrics = learner.step(step)
        except DivergenceError as error:
            good = f"last good checkpoint: step {saved} in {store.root}" if saved else "no checkpoint before it"
            raise DivergenceError(f"{error}; {good}; lower the learning rate or clip harder") from error
        last = step + 1 == learner.num_steps
        if last or (step + 1) % config.validate_every == 0:
            metrics = {**metrics, **learner.validate(step)}
            report({"step": float(step + 1), "num_steps": float(learner.num_steps), **metrics})
        if last or step % config.log_every == 0 or (step + 1) % config.validate_every == 0:
            progress.rows.append({"step": float(step + 1), "seconds": clock.total(), **metrics})
        progress.next_step, progress.seconds = step + 1, clock.total()
        if context.rank == 0 and (last or clock.due()):
            save(learner, progress, store, key)
            saved = step + 1
    return progress


def save(learner: Learner, progress: Progress, store: Store, key: str) -> None:
    """Write a checkpoint from which `resume` goes on."""
    tensors, rest = flatten(learner.state_dict())
    save_checkpoint(
        store, tensors, {"key": key, "next_step": progress.next_step, "num_steps": progress.num_steps,
                         "seconds": progress.seconds, "rows": progress.rows, "rest": rest},
    )  # fmt: skip


def resume(learner: Learner, store: Store, key: str) -> Progress | None:
    """Load the checkpoint in `store` into the learner; None where there is none under this key."""
    found = read_progress(store, key)
    if found is None:
        return None
    state, progress = found
    learner.load_state_dict(state)
    return progress


def read_progress(store: Store, key: str) -> tuple[dict[str, Any], Progress] | None:
    """The state and the progress of a checkpoint; None where there is none under this key."""
    if not store.exists("meta.json"):
        return None
    if store.read_json("meta.json").get("meta", {}).get("key") != key:
        return None
    tensors, meta = load_checkpoint(store)
    progress = Progress(int(meta["next_step"]), int(meta["num_steps"]), float(meta["seconds"]), meta["rows"])
    return unflatten(tensors, meta["rest"]), progress


class _Clock:
    def __init__(self, before: float, every_s: float) -> None:
        self._before, self._every_s = before, every_s
        self._start = self._last = time.monotonic()

    def total(self) -> float:
        return self._before + time.monotonic() - self._start

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._every_s:
            return False
        self._last = now
        return True
