"""Which learned latents matter: those that depend on what follows, given what the sensors show.

A camera sees much that no sensor shows: a colour, a shadow, the texture of pixels. Most of it has no effect on what
follows. A direction of the learned latents is relevant if, in some phase of the episodes, it is predicted better with
the episode's own outcomes than with those of another episode, beside the sensors of the same step. Outcomes are later
sensors, actions and rewards. Phases are tested one by one: the joints may not show a part's place at the start of an
episode, and show it later, when the arm is there.

Latents are predicted from outcomes, not outcomes from latents. Later joints are a nonlinear function of the place, and
nonlinear functions of a few sensors are easier to fit than those of many latents. Errors are cross-validated by
episode.

Legend: M rows of all episodes, S sensors, E learned dimensions, Q columns of an outcome, P predictors, R directions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from phaseb.runtime.seeding import torch_generator

LAGS = (8, 16)
"""Steps ahead of the sensors that count. Actions and rewards are means of the next `LAGS[0]` steps."""
NUM_PHASES = 10
"""Equal parts of an episode."""
LEAST_GAIN = 0.45
"""Least share of the residual variance of a direction that its own outcomes explain, in some phase."""
FLOOR = 1e-2
"""Noise variance that is added to every direction, relative to the mean of all."""
NUM_FOLDS = 5
MARGIN = 1.1
"""Least ratio of a gain to the largest gain by chance."""
NUM_SHUFFLES = 6
"""Shuffles of outcomes over episodes. They give the error to compare with, by as many features."""
GLOBAL_FEATURES, PHASE_FEATURES, BANDWIDTH = 400, 200, 3.0
"""Random features that stand for any smooth function, over all phases and within one, and their scale in standard
deviations."""
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Rows:
    """Steps of episodes, one below the other; columns have unit variance.

    Attributes:
        sensors: (M, S).
        learned: (M, E).
        outcomes: (M, Q) each, by name.
        episode: (M,) number of the episode.
        time: (M,) share of the episode that has passed, below 1.
    """

    sensors: Tensor
    learned: Tensor
    outcomes: Mapping[str, Tensor]
    episode: Tensor
    time: Tensor

    def at(self, chosen: Tensor) -> "Rows":
        """The chosen rows."""
        outcomes = {name: outcome[chosen] for name, outcome in self.outcomes.items()}
        return Rows(self.sensors[chosen], self.learned[chosen], outcomes, self.episode[chosen], self.time[chosen])


@dataclass(frozen=True)
class PhaseTest:
    """One outcome in one phase.

    Attributes:
        others: (NUM_SHUFFLES, E, E) second moments of the errors of predicting the learned latents from sensors, time
            and the outcomes of other episodes.
        own: (E, E) the same from sensors, time and the episode's own outcomes.
    """

    others: Tensor
    own: Tensor

    @classmethod
    def of(cls, sensors: Tensor, left: Tensor, outcome: Tensor, episode: Tensor, seed: int) -> "PhaseTest":
        """The test of rows of a phase.

        Args:
            sensors: (M, S + 1) and the time within the phase.
            left: (M, E) residuals of the learned latents, given the sensors, fitted over all phases.
            outcome: (M, Q).
            episode: (M,) number of the episode.
            seed: of the features and of the shuffles.
        """

        def error_moments(given: Tensor) -> Tensor:
            both = torch.cat([sensors, given], dim=1)
            known = torch.cat([both, smooth_functions(both, PHASE_FEATURES, seed)], dim=1)
            error = left - predictions(known, left, _folds(episode))
            return error.T @ error / len(error)

        others = [error_moments(outcome[_other_episodes(episode, seed, i)]) for i in range(NUM_SHUFFLES)]
        return cls(torch.stack(others), error_moments(outcome))

    def gains(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Shares of variance (E,) that the outcomes explain, largest first, and their directions (E, E).

        What directions `chosen` (E, R) explain of the others is taken off first.
        """
        return _gains(self.others.mean(0), self.own, chosen)

    def by_chance(self) -> float:
        """The largest share that the outcomes of another episode explain."""
        none, total = self.own[:, :0], self.others.sum(0)
        before = [(total - after) / (NUM_SHUFFLES - 1) for after in self.others]
        return max(float(_gains(b, after, none)[0][0]) for b, after in zip(before, self.others, strict=True))


def _gains(before: Tensor, after: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Relative fall of the variance from `before` to `after`, both (E, E), largest first, and directions (E, E)."""
    spread = chosen.T @ before @ chosen + 1e-12 * torch.eye(chosen.shape[1]).to(before)
    rest = torch.eye(len(before)).to(before) - chosen @ torch.linalg.solve(spread, chosen.T @ before)
    variance, axes = torch.linalg.eigh(rest.T @ before @ rest)
    white = axes / (variance.clamp_min(0) + FLOOR * before.diagonal().mean() + 1e-12).sqrt()
    told, turned = torch.linalg.eigh(white.T @ rest.T @ (before - after) @ rest @ white)
    return told.flip(0), (rest @ white @ turned).flip(1)


def _folds(episode: Tensor) -> Tensor:
    """(M,) the fold of each row of episodes (M,). No fold is empty where there are NUM_FOLDS episodes."""
    return torch.unique(episode, return_inverse=True)[1] % NUM_FOLDS


def _other_episodes(episode: Tensor, seed: int, number: int) -> Tensor:
    """(M,) for each row of episodes (M,) a row of another one at the same place, or at the last before it."""
    rows = [torch.nonzero(episode == e)[:, 0] for e in torch.unique(episode)]
    turned = 1 + int(torch.randint(len(rows) - 1, (), generator=torch_generator(seed, "relevance", number)))
    index = torch.empty_like(episode)
    for i, own in enumerate(rows):
        other = rows[(i + turned) % len(rows)]
        index[own] = other[torch.arange(len(own), device=own.device).clamp(max=len(other) - 1)]
    return index


def relevant_directions(rows: Rows, seed: int) -> Tensor:
    """Orthonormal directions (E, R) of the learned latents that matter, in the order of their gains.

    The test with the largest gain beside the directions before adds its directions of at least LEAST_GAIN. This stops
    where no gain exceeds the largest gain by chance, over all tests. Fewer episodes raise that bound; with fewer than
    NUM_FOLDS nothing is relevant.
    """
    chosen = rows.learned.new_zeros(rows.learned.shape[1], 0)
    tests = list(_tests(rows, seed)) if len(torch.unique(rows.episode)) >= NUM_FOLDS else []
    least = max([LEAST_GAIN, *(MARGIN * test.by_chance() for test in tests)])
    while tests and chosen.shape[1] < len(chosen):
        found = [test.gains(chosen) for test in tests]
        best = max(range(len(tests)), key=lambda i: float(found[i][0][0]))
        gains, directions = found[best]
        if gains[0] < least:
            break
        tests.pop(best)
        chosen = torch.linalg.qr(torch.cat([chosen, directions[:, gains >= LEAST_GAIN]], dim=1)[:, : len(chosen)])[0]
    return chosen


def _tests(rows: Rows, seed: int) -> Iterator[PhaseTest]:
    known = torch.cat([rows.sensors, smooth_functions(rows.sensors, GLOBAL_FEATURES, seed)], dim=1)
    left = rows.learned - predictions(known, rows.learned, _folds(rows.episode))
    for phase in range(NUM_PHASES):
        at = (NUM_PHASES * rows.time).long() == phase
        part = rows.at(at)
        if len(torch.unique(part.episode)) >= NUM_FOLDS:
            within = (part.time * NUM_PHASES - phase - 0.5)[:, None] * 12**0.5  # of unit variance
            sensors = torch.cat([part.sensors, within], dim=1)
            for outcome in part.outcomes.values():
                yield PhaseTest.of(sensors, left[at], outcome, part.episode, seed)


def smooth_functions(x: Tensor, number: int, seed: int) -> Tensor:
    """Random Fourier features (Rahimi & Recht 2007) of rows (M, P) of unit variance: (M, number)."""
    generator = torch_generator(seed, "readout", "features")
    frequency = torch.randn(x.shape[1], number, generator=generator, dtype=torch.float64).to(x) / BANDWIDTH
    phase = 2 * torch.pi * torch.rand(number, generator=generator, dtype=torch.float64).to(x)
    return torch.cos(x @ frequency + phase)


def predictions(x: Tensor, y: Tensor, folds: Tensor) -> Tensor:
    """(M, ·) of y by ridge regression on x (M, P) with an intercept, each fold of (M,) from the others.

    The penalty, of PENALTIES, has the least error over all folds.
    """
    parts = [(folds == fold, folds != fold) for fold in torch.unique(folds)]
    moments = [_moments(x[rest], y[rest]) for _, rest in parts]
    best, least = torch.zeros_like(y), torch.inf
    for penalty in PENALTIES:
        out = torch.empty_like(y)
        for (held_out, _), known in zip(parts, moments, strict=True):
            ridge = penalty * torch.eye(len(known.gram), dtype=x.dtype, device=x.device)
            out[held_out] = (x[held_out] - known.mean) @ torch.linalg.solve(
                known.gram + ridge, known.cross
            ) + known.centre
        error = float((y - out).square().sum())
        if error < least:
            best, least = out, error
    return best


class Moments(NamedTuple):
    """Means of x (M, P) and y (M, Q), and their second moments (P, P), (P, Q) about them."""

    mean: Tensor
    centre: Tensor
    gram: Tensor
    cross: Tensor


def _moments(x: Tensor, y: Tensor) -> Moments:
    mean, centre = x.mean(0), y.mean(0)
    return Moments(mean, centre, (x - mean).T @ (x - mean) / len(x), (x - mean).T @ (y - centre) / len(x))
