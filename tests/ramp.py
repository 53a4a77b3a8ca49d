"""An objective whose best setting changes on the way: fast at first, careful later. No fixed setting does both."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from phaseb.dynamics.gru_ensemble.scheduled_learner import ScheduledLearner
from phaseb.errors import DivergenceError


class RampLearner:
    def __init__(self, config: Any, num_steps: int) -> None:
        self.config, self.num_steps = config, num_steps
        self.error = torch.tensor(1.0, dtype=torch.float64)

    def step(self, step: int) -> dict[str, float]:
        if self.config.weights.var > 5 and step > self.num_steps / 3:
            raise DivergenceError(f"ramp diverged at step {step}")
        best = -1.5 if step < self.num_steps / 2 else -2.5
        off = abs(math.log10(self.config.learning_rate) - best)
        self.error = self.error * (0.9 + 0.05 * min(off, 3.0))
        return {}

    def validate(self, step: int) -> dict[str, float]:
        return {}

    def bundle(self) -> "RampLearner":
        return self

    def state_dict(self) -> dict[str, Any]:
        return {"error": self.error}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.error = state["error"]


def make(world_model: Any) -> Any:
    if world_model.changes:
        return ScheduledLearner(world_model, lambda stage: RampLearner(stage, world_model.num_steps))
    return RampLearner(world_model, world_model.num_steps)


class Ramp:
    sections = ("dynamics.gru",)
    steps = "dynamics.gru.num_steps"
    changes = "dynamics.gru.changes"

    def metrics(self, config: Any) -> Mapping[str, str]:
        return {"error": "what is left"}

    def prepare(self, config: Any, callbacks: Any) -> Any:
        return np.zeros(10)

    def make_learner(self, config: Any, data: Any, context: Any) -> Any:
        return make(config.dynamics.gru)

    def measure(self, learner: Any, config: Any, data: Any, seed: int, split: str = "dev") -> dict[str, float]:
        return {"error": float(learner.bundle().error)}
