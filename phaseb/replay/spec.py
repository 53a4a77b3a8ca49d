"""How one learner's batches are drawn, and the interface that it sees."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from phaseb.runtime.seeding import derive_seed

Weighting = Literal["uniform", "sampling", "loss"]
REAL, SYNTHETIC = 0, 1
SourceT = TypeVar("SourceT")


@dataclass(frozen=True)
class SampleSpec:
    """One stream of batches: an (arm, seed) of the policy.

    A batch of B has exactly `round(synthetic_share · B)` synthetic transitions, of which
    - `uniform` draws all alike, each with weight 1;
    - `sampling` draws in proportion to `weight_column`, each with weight 1;
    - `loss` draws all alike, each with its weight for the loss.
    Real transitions are drawn alike with weight 1. A filter is a weight column of 0 and 1.

    Where fewer synthetic transitions can be drawn than the share asks for, because there are few or their weights are
    zero, the batch is refused, or with `when_short="real"` real ones take the places that are left: where no weight is
    positive that batch is the very batch that a spec of share 0 draws.

    Attributes:
        name: told in the accounting.
        seed: of the stream. Real rows depend on (seed, step) alone.
        synthetic_share: share of the batch, in [0, 1].
        weight_column: a weight of the schema; required by `sampling` and `loss`.
        weighting: see above.
        share_follows_weight: scale the share by the mean weight of all synthetic transitions (at most 1), so that
            data that is trusted little also gets little of the batch.
        when_short: see above.
    """

    name: str
    seed: int
    synthetic_share: float = 0.0
    weight_column: str | None = None
    weighting: Weighting = "uniform"
    share_follows_weight: bool = False
    when_short: Literal["refuse", "real"] = "refuse"

    def __post_init__(self) -> None:
        if not 0.0 <= self.synthetic_share <= 1.0:
            raise ValueError(f"{self.name}: synthetic_share {self.synthetic_share} is not in [0, 1]")
        if self.weighting in ("sampling", "loss") and self.weight_column is None:
            raise ValueError(f"{self.name}: weighting {self.weighting!r} needs a weight_column")


class BatchSource(Protocol):
    """What a learner sees of the buffer."""

    def sample(self, step: int, num_batches: int) -> Mapping[str, NDArray[np.generic]]:
        """The batches of steps `step` … `step + num_batches − 1`.

        Returns: arrays of shape (num_batches, R, B, …), R the number of specs: `z` (…, D), `action` (…, A), `reward`,
        `next_z` (…, D), `discount` (γ, 0 where the task ended), `is_synthetic` (bool), `weight` (for
        the loss), `trust`, `age` (rows of its source inserted since), `cut` (1 where the
        episode's recording ended with this step although its task had not). Where chunks were asked for also `chunk`
        (…, K, A) and `chunk_share` (…, K), see `Stratum.chunks`. The arrays may be read-only views of one block; they
        are the same for the same step however the calls are cut.
        """
        ...


@dataclass(frozen=True)
class BatchShape:
    """B, and the part of it that this worker takes: columns [begin, stop).

    Attributes:
        chunk_steps: K, actions that come with a row: its own and those of the steps that follow it.
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1
    chunk_steps: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.world_size:
            raise ValueError(f"a batch of {self.batch_size} does not divide by {self.world_size} workers")

    @property
    def share(self) -> int:
        return self.batch_size // self.world_size

    @property
    def begin(self) -> int:
        return self.rank * self.share


class Replay(ABC, Generic[SourceT]):
    """A buffer that learners draw batches from."""

    def source(
        self,
        specs: Sequence[SampleSpec],
        batch_size: int,
        gamma: float,
        rank: int = 0,
        world_size: int = 1,
        chunk_steps: int = 1,
    ) -> SourceT:
        """Batches of `batch_size` for each spec, or this worker's part of them; `chunk_steps` actions with each row."""
        return self.make_source(tuple(specs), BatchShape(batch_size, rank, world_size, chunk_steps), gamma)

    @abstractmethod
    def make_source(self, specs: tuple[SampleSpec, ...], shape: BatchShape, gamma: float) -> SourceT:
        """Batches of this shape for each spec."""


def draw(spec: SampleSpec, num_synthetic: int, shape: BatchShape, step: int, num_batches: int) -> NDArray[np.float64]:
    """(num_batches, share): a number in [0, 1) for each place of this worker's part of the batches.

    Each stratum has a stream of its own, `batch_size` numbers a step, read from that step on: the real part of a batch
    is a prefix of the batch that is all real.
    """
    num_real = shape.batch_size - num_synthetic
    numbers = _stream(spec.seed, "real", shape.batch_size, step, num_batches)
    if num_synthetic:
        numbers[:, num_real:] = _stream(spec.seed, "synthetic", shape.batch_size, step, num_batches)[:, :num_synthetic]
    return numbers[:, shape.begin : shape.begin + shape.share]


def _stream(seed: int, stratum: str, width: int, step: int, num_steps: int) -> NDArray[np.float64]:
    bits = np.random.PCG64(derive_seed(seed, "replay", stratum))
    bits.advance(step * width)
    return np.random.Generator(bits).random((num_steps, width))
