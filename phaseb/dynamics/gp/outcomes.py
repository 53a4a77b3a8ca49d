"""Outcomes and rewards of one situation: small ensembles of Gaussian processes over its transitions.

Legend: N steps, D latent dimensions, A action dimensions, J input columns.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from phaseb.dynamics.gp.gaussian_process import FitPlan, GaussianProcess

Floats = NDArray[np.float32]
Plan = Callable[..., FitPlan]


@dataclass(frozen=True)
class InputProjection:
    """The inputs of one process (N, J): latents along directions, and everything else where asked for."""

    directions: NDArray[np.float64]
    continuous_actions: NDArray[np.int64]
    everything: bool

    @classmethod
    def of_situation(
        cls, directions: NDArray[np.float64], continuous_actions: NDArray[np.int64]
    ) -> list["InputProjection"]:
        """Inputs of the processes of one situation: the directions alone, and everything beside them."""
        whole = cls(directions, continuous_actions, everything=True)
        return [replace(whole, everything=False), whole] if directions.size else [whole]

    def __call__(self, z: Floats, actions: Floats) -> NDArray[np.float64]:
        along = z @ self.directions
        return np.concatenate([along, z, actions[:, self.continuous_actions]], 1) if self.everything else along

    def whole(self) -> "InputProjection":
        """Everything, and no directions."""
        return InputProjection(self.directions[:, :0], self.continuous_actions, everything=True)


@dataclass(frozen=True)
class OutcomeGP:
    """Which outcome a step of one situation has; certain where it always had the same.

    Attributes:
        kinds: (O,) the outcomes seen.
        inputs: projection of each member.
        members: processes of the signs of each outcome; none where there is one outcome.
    """

    kinds: NDArray[np.int64]
    inputs: list[InputProjection]
    members: list[GaussianProcess]

    @classmethod
    def fit(
        cls,
        inputs: list[InputProjection],
        z: Floats,
        actions: Floats,
        outcomes: NDArray[np.int64],
        unchanged: int,
        plan: Plan,
        seed: int,
    ) -> "OutcomeGP":
        """Fit to the steps of one situation; `unchanged` is the outcome at which nothing happens."""
        kinds = np.unique(outcomes)
        if len(kinds) == 1:
            return cls(kinds, inputs, [])
        signs = np.where(outcomes[:, None] == kinds, 1.0, -1.0)
        prior = np.where(kinds == unchanged, 1.0, -1.0)  # far from all examples, nothing happens
        return cls(kinds, inputs, [GaussianProcess(x(z, actions), signs, plan(prior=prior), seed) for x in inputs])

    def draw(self, z: Floats, actions: Floats, uniform: NDArray[np.float64] | None) -> NDArray[np.int64]:
        """Outcomes (N,) drawn by numbers `uniform` (N,) in [0, 1); the likeliest ones where None."""
        if not self.members:
            return np.full(len(z), self.kinds[0])
        shares = np.zeros((len(z), len(self.kinds)))
        for project, member in zip(self.inputs, self.members, strict=True):
            mean, std = member.predict(project(z, actions))
            shares += ndtr(mean / np.sqrt(np.square(std) + np.square(member.noise.numpy())))
        if uniform is None:
            return np.asarray(self.kinds[shares.argmax(1)])
        shares = np.cumsum(shares + 1e-9, 1)
        drawn = (shares[:, :-1] < uniform[:, None] * shares[:, -1:]).sum(1)
        return np.asarray(self.kinds[drawn])


@dataclass(frozen=True)
class RewardGP:
    """The reward of one outcome of one situation, never outside the recorded range [low, high].

    Attributes:
        rare: whether the outcome is rare: then the prior mean is the least reward recorded, and all projections count.
    """

    low: float
    high: float
    rare: bool
    inputs: list[InputProjection]
    members: list[GaussianProcess]

    @classmethod
    def fit(
        cls,
        projections: list[InputProjection],
        z: Floats,
        actions: Floats,
        rewards: Floats,
        rare: bool,
        plan: Plan,
        seed: int,
    ) -> "RewardGP":
        """Fit to the steps of one outcome of one situation."""
        low, high = float(rewards.min()), float(rewards.max())
        inputs, target = cls.inputs_of(projections, rare), rewards[:, None].astype(np.float64)
        prior = np.array([low]) if rare else None
        members = [GaussianProcess(x(z, actions), target, plan(prior=prior), seed) for x in inputs]
        return cls(low, high, rare, inputs, members)

    @staticmethod
    def inputs_of(projections: list[InputProjection], rare: bool) -> list[InputProjection]:
        """The projections of the members, of those of the situation."""
        return projections if rare else [projections[-1].whole()]

    def predict(self, z: Floats, actions: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean reward, and how much less it is one standard deviation below the least hopeful member, each (N,)."""
        found = [member.predict(x(z, actions)) for x, member in zip(self.inputs, self.members, strict=True)]
        mean = np.mean([m[:, 0] for m, _ in found], 0)
        least = np.min([m[:, 0] - s[:, 0] for m, s in found], 0)
        mean, least = (np.clip(x, self.low, self.high) for x in (mean, least))
        return mean, mean - least
