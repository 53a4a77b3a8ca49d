"""What one row of the buffer holds, and where in the row it lies.

A row is one float32 record `[z | action | reward | terminal | cut | trust | uncertainty | weights…]`. Rows of an
episode lie one after the other, so that a transition's successor observation is the head of the next row: an
observation is stored once, and a transition is read as one run of memory.
"""

from dataclasses import asdict, dataclass
from typing import Any

from phaseb.errors import DataError


@dataclass(frozen=True)
class TransitionSchema:
    """The columns of a record.

    Attributes:
        latent_size: D, numbers in an observation's latent.
        action_size: A.
        weights: names of the weight columns, each non-negative; `weight` is the gate's.
    """

    latent_size: int
    action_size: int
    weights: tuple[str, ...] = ("weight",)

    def __post_init__(self) -> None:
        if self.latent_size < 1 or self.action_size < 1:
            raise ValueError(f"latent_size {self.latent_size} and action_size {self.action_size} must be positive")
        if len(set(self.weights)) != len(self.weights):
            raise ValueError(f"weight columns {self.weights} repeat a name")

    @property
    def width(self) -> int:
        """Numbers in a record."""
        return self.latent_size + self.action_size + 5 + len(self.weights)

    @property
    def action(self) -> slice:
        return slice(self.latent_size, self.latent_size + self.action_size)

    @property
    def reward(self) -> int:
        return self.latent_size + self.action_size

    @property
    def terminal(self) -> int:
        return self.reward + 1

    @property
    def cut(self) -> int:
        return self.reward + 2

    @property
    def trust(self) -> int:
        return self.reward + 3

    @property
    def uncertainty(self) -> int:
        return self.reward + 4

    def weight(self, name: str) -> int:
        """The column of a weight.

        Raises:
            DataError: where the buffer has no such weight.
        """
        if name not in self.weights:
            there = ", ".join(self.weights) or "none"
            raise DataError(f"no weight column {name!r} in the replay buffer; it has {there}")
        return self.reward + 5 + self.weights.index(name)

    @property
    def run(self) -> int:
        """Numbers in a record and the observation behind it."""
        return self.width + self.latent_size

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TransitionSchema":
        return cls(int(value["latent_size"]), int(value["action_size"]), tuple(value["weights"]))

    def require(self, other: "TransitionSchema", where: str) -> None:
        """Raises DataError where `other` (of `where`) is not this schema."""
        if other != self:
            differing = [k for k, v in self.to_json().items() if other.to_json()[k] != v]
            told = ", ".join(f"{k} {other.to_json()[k]} instead of {self.to_json()[k]}" for k in differing)
            raise DataError(f"{where} does not fit the replay buffer: {told}")
