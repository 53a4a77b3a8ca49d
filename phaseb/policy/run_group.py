"""What the learners of a group of runs have in common: how they are made, updated, read and kept."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

from phaseb.config.policy import PolicyConfig
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import Batch, RunSpec
from phaseb.policy.trained_policy import TrainedPolicy

Metrics = dict[str, Tensor]  # each (R,), not yet a number: reading one waits for the device
Noise = TypeVar("Noise")
Drawn = TypeVar("Drawn", covariant=True)


class NoiseSource(Protocol[Drawn]):
    """The random numbers of each step: no state to save, the same for one worker and for many."""

    def at(self, step: int, context: WorkerContext, /) -> Drawn:
        """Those of this worker's rows."""
        ...


class RunGroup(ABC, Generic[Noise]):
    """Networks, optimisers and one update of R runs, which all learn in the same way.

    Args:
        config: of the learner.
        specs: R runs.
        z_size, action_size: D and A.
        context: seed and place among workers.
        levels: (A, 2) of binary actions, the same twice for other dimensions; None: there are none.
    """

    def __init__(
        self,
        config: PolicyConfig,
        specs: Sequence[RunSpec],
        z_size: int,
        action_size: int,
        context: WorkerContext,
        levels: Tensor | None = None,
    ) -> None:
        self.config, self.specs, self.context, self.levels = config, tuple(specs), context, levels
        self.build(z_size, action_size)

    @abstractmethod
    def build(self, z_size: int, action_size: int) -> None:
        """Make the networks and their optimisers."""

    @abstractmethod
    def update(self, batch: Batch, noise: Noise, step: int) -> Metrics:
        """One step on this worker's rows. Returns metrics by name, each (R,), to be read before the next step."""

    @abstractmethod
    def noise_stream(self) -> NoiseSource[Noise]:
        """The noise of the updates."""

    @abstractmethod
    def policy(self, place: int) -> TrainedPolicy:
        """A copy of one run's policy, averaged over its last steps."""

    @abstractmethod
    def networks(self) -> list[nn.Module]:
        """Those that every update calls."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that a resumed learner needs to make the same updates."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
