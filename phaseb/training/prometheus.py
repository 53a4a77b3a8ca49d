"""What Prometheus sees of a training: steps, pace, held-out metrics, checkpoints, starts. Without Ray: nothing."""

from collections.abc import Mapping
from typing import Any

import ray
from ray.util.metrics import Counter, Gauge

STAGE = ("stage",)


class Meters:
    """The meters of one training on one worker; only the first worker has any, so that nothing is counted twice.

    Args:
        stage: name of the training.
        on: whether to measure (False: all methods do nothing).
    """

    def __init__(self, stage: str, on: bool = True) -> None:
        self._tags = {"stage": stage}
        self._meters: dict[str, Any] | None = _make() if on and ray.is_initialized() else None

    def started(self, step: int, num_steps: int) -> None:
        """A worker begins, or goes on, at a step."""
        self._count("starts", 1)
        self._set("step", step)
        self._set("num_steps", num_steps)

    def stepped(self, step: int, seconds: float, num_steps: int = 1) -> None:
        """So many more steps are made, in so many seconds."""
        self._set("step", step)
        self._count("steps", num_steps)
        self._set("step_seconds", seconds / max(num_steps, 1))

    def looked(self, metrics: Mapping[str, float]) -> None:
        """A held-out look."""
        if self._meters is not None:
            for name, value in metrics.items():
                if isinstance(value, int | float) and value == value:
                    self._meters["value"].set(value, tags={**self._tags, "metric": name})

    def saved(self, seconds: float) -> None:
        """A checkpoint is on storage."""
        self._count("checkpoints", 1)
        self._set("checkpoint_seconds", seconds)

    def failed(self) -> None:
        """A checkpoint could not be written."""
        self._count("checkpoint_failures", 1)

    def _set(self, name: str, value: float) -> None:
        if self._meters is not None:
            self._meters[name].set(value, tags=self._tags)

    def _count(self, name: str, amount: int) -> None:
        if self._meters is not None and amount > 0:
            self._meters[name].inc(amount, tags=self._tags)


def _make() -> dict[str, Any]:
    prefix = "phaseb_training"
    counters = {
        "starts": "Times that workers began or went on with this training.",
        "steps": "Optimiser steps made, those made again included.",
        "checkpoints": "Checkpoints written.",
        "checkpoint_failures": "Checkpoints that could not be written, or were left out because storage was slow.",
    }
    gauges = {
        "step": "Steps behind it.",
        "num_steps": "Steps of the whole training.",
        "step_seconds": "Seconds a step took lately.",
        "checkpoint_seconds": "Seconds that the last checkpoint took to write.",
    }
    return {
        **{name: Counter(f"{prefix}_{name}", text, STAGE) for name, text in counters.items()},
        **{name: Gauge(f"{prefix}_{name}", text, STAGE) for name, text in gauges.items()},
        "value": Gauge(f"{prefix}_value", "Metrics of the last held-out look.", (*STAGE, "metric")),
    }
