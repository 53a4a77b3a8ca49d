"""A training that is struck once it has come some way, and how long it is before it trains on."""

import itertools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from linear import LinearLearner, problem

from phaseb.config.run import ResourcesConfig, TrainingConfig
from phaseb.runtime.storage import Store
from phaseb.training.fit import FitResult, fit

SEED = 1
NUM_STEPS = 120
TRAINING = TrainingConfig(checkpoint_every_s=1e-6, validate_every=40, log_every=40)


class Strike(threading.Thread):
    """Watches a training's checkpoints; strikes once at a step; notes every step that it sees written.

    Attributes:
        at: the step it struck at.
        moments: (seconds since the strike, step) of every advance seen after it.
        error: what went wrong in the striking itself.
    """

    def __init__(self, folder: Path, blow: Callable[[], None], step: int = 10) -> None:
        super().__init__(daemon=True)
        self._meta, self._blow, self._step = folder / "meta.json", blow, step
        self._end = threading.Event()
        self.at = 0
        self.moments: list[tuple[float, int]] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while (step := self._written()) < self._step:
                if self._end.wait(0.02):
                    return
            self.at, begin = step, time.monotonic()
            self._blow()
            while not self._end.wait(0.02):
                now = self._written()
                if now != step:
                    self.moments.append((time.monotonic() - begin, now))
                    step = now
        except (AssertionError, OSError, RuntimeError, StopIteration) as error:
            self.error = error

    def conclude(self) -> None:
        """To be called when the training is over: the strike must have happened, in the middle of it."""
        self._end.set()
        self.join()
        if self.error is not None:
            raise self.error
        assert 0 < self.at < NUM_STEPS, "the training was over before it was struck"

    @property
    def pause_s(self) -> float:
        """The longest time after the strike without an advance: from the strike to training again."""
        times = [0.0, *(moment for moment, _ in self.moments)]
        return float(np.max(np.diff(times)))

    @property
    def steps_lost(self) -> int:
        """Steps that were written and had to be made again."""
        steps = [self.at, *(step for _, step in self.moments)]
        return int(max(0, *(before - after for before, after in itertools.pairwise(steps))))

    def _written(self) -> int:
        try:
            return int(json.loads(self._meta.read_bytes())["meta"]["next_step"])
        except (FileNotFoundError, json.JSONDecodeError):
            return 0


def train(
    folder: Path | Store,
    workers: int,
    *,
    sleep_s: float = 0.05,
    training: TrainingConfig = TRAINING,
    data: dict[str, Any] | None = None,
    **resources: Any,
) -> FitResult:
    """Least squares on that many workers, one to a node, slow enough to be struck."""
    store = folder if isinstance(folder, Store) else Store.at(folder)
    return fit(
        LinearLearner,
        data or problem(NUM_STEPS, sleep_s=sleep_s),
        seed=SEED,
        key="k",
        store=store,
        training=training,
        resources=ResourcesConfig(num_workers=workers, placement_strategy="SPREAD", **resources),
        name="linear",
    )


def same(one: FitResult, other: FitResult) -> None:
    """Equal to float tolerance: the parameters at the end and the metrics on the way."""
    np.testing.assert_allclose(one.state["weight"].numpy(), other.state["weight"].numpy(), rtol=1e-4, atol=1e-6)
    assert [row["step"] for row in one.rows] == [row["step"] for row in other.rows]
    np.testing.assert_allclose([r["loss"] for r in one.rows], [r["loss"] for r in other.rows], rtol=1e-3)
