"""What a domain gives to be trained."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from phaseb.nn.data_parallel import WorkerContext


class Learner(Protocol):
    """A module, its optimiser and its data; plain torch."""

    num_steps: int

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step on this worker's share of the global batch of step `step`; metrics by name."""

    def validate(self, step: int) -> dict[str, float]:
        """Cheap metrics on held-out data."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that training goes on from: nested dictionaries of tensors and JSON values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


@runtime_checkable
class Compilable(Protocol):
    """A learner that says what its steps repeat."""

    def compile_targets(self) -> Sequence[tuple[Any, str]]:
        """Objects and names of their methods (`forward` of a module) that are worth compiling."""


LearnerFactory = Callable[[WorkerContext], Learner]
"""Makes the learner inside the worker that will train it. A module-level function or `functools.partial` of one."""
