"""A world model whose settings change on the way (`dynamics.gru.changes`): weights of losses, forcing, rates.

At a change the learner is made anew under the new settings and goes on from the state of the old one, as a member of
a population does that took over another's weights. So a schedule that a population found is trained again step by step.
"""

from collections.abc import Callable
from typing import Any

import torch

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.gru_ensemble.gp_correction import EventGPFitter
from phaseb.dynamics.gru_ensemble.learner import EnsembleLearner
from phaseb.dynamics.gru_ensemble.model import EnsembleDynamics

MakeStage = Callable[[GRUConfig], EnsembleLearner]


class ScheduledLearner:
    """Implements the training protocol by the learner of the stage that a step lies in.

    Args:
        make: a learner under settings without changes.
    """

    def __init__(self, config: GRUConfig, make: MakeStage) -> None:
        self._stages, self._make = config.stages(), make
        self._index = 0
        self._learner = make(self._stages[0][1])
        self.num_steps = config.num_steps

    def step(self, step: int) -> dict[str, float]:
        """One update under the settings of this step.

        Raises:
            DivergenceError: where the loss is NaN, Inf or has exploded.
        """
        self._enter(max(i for i, (at, _) in enumerate(self._stages) if step / self.num_steps >= at))
        return self._learner.step(step)

    def validate(self, step: int) -> dict[str, float]:
        return self._learner.validate(step)

    def bundle(self) -> EnsembleDynamics:
        return self._learner.bundle()

    def event_gp_fitter(self) -> EventGPFitter:
        return self._learner.event_gp_fitter()

    def take_event_gp_fitter(self, processes: EventGPFitter) -> None:
        self._learner.take_event_gp_fitter(processes)

    def state_dict(self) -> dict[str, Any]:
        return {"stage": torch.tensor(self._index), "learner": self._learner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state of this learner, or of one without changes, which is the first stage's."""
        own = "stage" in state
        self._enter(int(state["stage"]) if own else 0, state["learner"] if own else state)

    def _enter(self, index: int, state: dict[str, Any] | None = None) -> None:
        if index != self._index:
            state = self._learner.state_dict() if state is None else state
            self._index, self._learner = index, self._make(self._stages[index][1])
        if state is not None:
            self._learner.load_state_dict(state)
