"""An objective that costs nothing: a valley over two settings of the real config, reached as steps go by."""

import math
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from phaseb.errors import DivergenceError


class ValleyLearner:
    def __init__(self, config: Any, data: Any, context: Any) -> None:
        self.num_steps, self.config, self.seed = config.dynamics.gru.num_steps, config, context.seed
        self.at, self.floor = 0, float(data[0])
        self.pause_s = float(os.environ.get("VALLEY_PAUSE_S", "0"))
        if log := os.environ.get("VALLEY_LOG"):
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"{config.dynamics.gru.learning_rate!r} {config.dynamics.gru.weights.trust!r} {self.seed}\n")

    def step(self, step: int) -> dict[str, float]:
        self.at = step + 1
        self._die_once(step)
        time.sleep(self.pause_s)
        if self.config.dynamics.gru.weights.var > 5:
            raise DivergenceError(f"valley diverged at step {step}")
        return {}

    def _die_once(self, step: int) -> None:
        """Kill this process in the middle of a trial, if `episodes.path` names a file that does not exist yet."""
        marker = self.config.episodes.path
        if marker and step == 20 and not os.path.exists(marker):
            with open(marker, "w", encoding="utf-8"):
                os.kill(os.getpid(), signal.SIGKILL)

    def validate(self, step: int) -> dict[str, float]:
        return {}

    def height(self) -> float:
        w = self.config.dynamics.gru
        off = math.log10(w.learning_rate / 1e-2) ** 2 + (w.weights.trust - 0.5) ** 2
        return off + self.floor + 1.0 / self.at

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = int(state["at"])


class Valley:
    sections = ("dynamics.gru",)
    steps = "dynamics.gru.num_steps"

    def metrics(self, config: Any) -> Mapping[str, str]:
        return {"height": "above the floor", "other": "higher is better"}

    def prepare(self, config: Any, callbacks: Any) -> Any:
        return np.full(1000, 0.25)

    def make_learner(self, config: Any, data: Any, context: Any) -> ValleyLearner:
        return ValleyLearner(config, data, context)

    def measure(self, learner: Any, config: Any, data: Any, seed: int, split: str = "dev") -> dict[str, float]:
        return {"height": learner.height(), "other": config.dynamics.gru.weights.trust}
