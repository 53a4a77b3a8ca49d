"""The people at the crane: proportional-derivative control with sway damping, of mixed skill.

N operators. Each brings gains, tolerances, patience and a tremor of their own, drawn once an episode around those of
their kind. A hasty one drives hard, damps sway little and places while the part still swings; a skilled one waits
for calm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phaseb.runtime.seeding import numpy_generator

Floats = NDArray[np.float64]

NEAR_M = 0.3  # closer than this, patience runs
TREMOR_MEMORY = 0.7  # correlation of an operator's unsteadiness from one step to the next


@dataclass(frozen=True)
class Operator:
    """One operator's habits, or N operators' where the fields are arrays.

    Attributes:
        pace: factor on the drive towards the target; higher is faster and swings more.
        damping: share of the sway damping that would calm the load best.
        distance_m: the offset of the hook at which the operator deems the place good enough.
        speed_m_s: the hook speed deemed calm enough.
        patience_steps: steps near the target after which the gripper acts come what may.
        tremor: standard deviation of the drive's unsteadiness, in shares of the full force.
    """

    pace: Any
    damping: Any
    distance_m: Any
    speed_m_s: Any
    patience_steps: Any
    tremor: Any

    @classmethod
    def stack(cls, operators: Sequence["Operator"]) -> Self:
        """Several operators as one with arrays for habits."""
        return cls(**{f.name: np.array([getattr(o, f.name) for o in operators], dtype=float) for f in fields(cls)})


KINDS = {
    "skilled": Operator(pace=0.65, damping=0.85, distance_m=0.115, speed_m_s=0.38, patience_steps=13.0, tremor=0.10),
    "average": Operator(pace=0.65, damping=0.65, distance_m=0.13, speed_m_s=0.46, patience_steps=10.0, tremor=0.16),
    "hasty": Operator(pace=0.80, damping=0.65, distance_m=0.15, speed_m_s=0.65, patience_steps=6.0, tremor=0.20),
}
SKILLED_SHARE, HASTY_SHARE = 0.3, 0.3
"""Shares of recorded episodes by skilled and by hasty operators; average ones record the others."""
SPREAD = 0.15  # standard deviation of the logarithm of every habit within a kind


def draw_operator(seed: int) -> tuple[str, Operator]:
    """The kind and the habits of the operator of one episode, from the stream (seed, "operator")."""
    generator = numpy_generator(seed, "operator")
    u = generator.uniform()
    if u < SKILLED_SHARE:
        kind = "skilled"
    else:
        kind = "hasty" if u < SKILLED_SHARE + HASTY_SHARE else "average"
    factors = np.exp(SPREAD * generator.standard_normal(len(fields(Operator))))
    habits = {f.name: getattr(KINDS[kind], f.name) * x for f, x in zip(fields(Operator), factors, strict=True)}
    return kind, Operator(**{name: float(value) for name, value in habits.items()})


class OperatorCrew:
    """A `Controller`: N operators, one at each cell, who read the cell's state vector."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        self._habits = Operator.stack(operators)
        self._num = len(operators)

    def reset(self, seeds: Sequence[int]) -> None:
        """A new episode: patience is full; tremor follows from (seed, "tremor")."""
        self._generators = [numpy_generator(seed, "tremor") for seed in seeds]
        self._tremor, self._waited = np.zeros((2, self._num))
        self._was_loaded = np.zeros(self._num, dtype=bool)

    def act(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """(N, 2) drive and gripper."""
        state, habits = observation["state"].astype(float), self._habits
        speed, swing, rate = state[:, 1], state[:, 2], state[:, 3]
        loaded = state[:, 4] > 0
        offset = np.where(loaded, state[:, 6], state[:, 5])
        hook_speed = np.abs(speed + np.cos(swing) * rate)
        drive = self._drive(offset + np.sin(swing), speed, swing, rate)
        near = np.abs(offset) < NEAR_M
        self._waited = np.where(loaded == self._was_loaded, self._waited + near, 0)
        self._was_loaded = loaded
        ready = (np.abs(offset) < habits.distance_m) & (hook_speed < habits.speed_m_s)
        acts = ready | (near & (self._waited > habits.patience_steps))
        return np.stack([drive, np.where(acts, 1.0, -1.0)], axis=1).astype(np.float32)

    def _drive(self, cart_offset: Floats, speed: Floats, swing: Floats, rate: Floats) -> Floats:
        habits = self._habits
        fresh = np.array([g.standard_normal() for g in self._generators])
        self._tremor = TREMOR_MEMORY * self._tremor + np.sqrt(1 - TREMOR_MEMORY**2) * habits.tremor * fresh
        towards = 1.1 * habits.pace * np.clip(cart_offset, -1.5, 1.5)
        # Rates are fed back by the root of the pace: the closed loop's damping ratio then stays as it is.
        calming = habits.damping * (0.4 * swing - 0.3 * rate) - speed
        return np.clip(towards + np.sqrt(habits.pace) * calming + self._tremor, -1, 1)
