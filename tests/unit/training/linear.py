"""A learner small enough to check by hand: least squares by SGD with momentum on batches drawn by step."""

import time
from typing import Any

import numpy as np
import torch

from phaseb.errors import DivergenceError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.seeding import numpy_generator


class LinearLearner:
    def __init__(self, data: dict[str, Any], context: WorkerContext) -> None:
        self.num_steps = int(data["num_steps"])
        self._x, self._y = torch.tensor(data["x"]), torch.tensor(data["y"])
        self._context, self._data = context, data
        self.weight = torch.nn.Parameter(torch.zeros(self._x.shape[1]))
        self._optimizer = torch.optim.Adam([self.weight], lr=0.05)

    def step(self, step: int) -> dict[str, float]:
        if step == self._data.get("diverge_at", -1):
            raise DivergenceError(f"loss is not finite at step {step}")
        if self._data.get("sleep_s"):
            time.sleep(self._data["sleep_s"])
        if self._data.get("steps_log"):
            with open(self._data["steps_log"], "a", encoding="utf-8") as log:
                log.write(f"{self._context.rank} {step}\n")
        rows = numpy_generator(self._context.seed, "batch", step).integers(0, len(self._x), 32)
        index = torch.from_numpy(self._context.shard(rows))
        loss = ((self._x[index] @ self.weight - self._y[index]) ** 2).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._context.average_gradients([self.weight])
        self._optimizer.step()
        return {"loss": float(self._context.all_reduce_mean(loss.detach()))}

    def validate(self, step: int) -> dict[str, float]:
        return {"mse": float(((self._x @ self.weight.detach() - self._y) ** 2).mean())}

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight.detach(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight.data.copy_(state["weight"])
        self._optimizer.load_state_dict(state["optimizer"])


def problem(num_steps: int = 60, **extra: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    y = (x @ np.array([1.0, -2.0, 0.5])).astype(np.float32)
    return {"x": x, "y": y, "num_steps": num_steps, **extra}
