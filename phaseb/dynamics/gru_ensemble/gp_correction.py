"""Where a step lands, told by Gaussian processes, once the networks have told what happens.

Networks trained on a few thousand transitions decide well whether a grip caught, for they read what was done next; but
they blur where that leads: on held-out episodes several times as far off as on those they know, above all where the
latents jump. Gaussian processes on the same transitions, one for each kind of event (from these levels to those, or
none), are that much sharper. So a step's continuous directions are taken from them wherever both agree on what happens:
the kind is one that was seen, and the processes land within a few times the usual distance of where the networks do.

Which kinds that holds for is asked of the data: those of which the processes' leave-one-out error is below the error
that the networks have left on the very transitions they were trained on. All directions of a step come from one or the
other: taken from both, what is left of each one's error does not fit the other's, and a judge sees that at once.
Legend: K members, n rows, D latent, A action, I = D + A inputs, O directions, E event dimensions, N rows known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.config.dynamics import GPCorrectionConfig
from phaseb.dynamics.gp.gaussian_process import FitPlan, GaussianMean, GaussianProcess
from phaseb.dynamics.gru_ensemble.network import LatentDynamics
from phaseb.runtime.seeding import derive_seed, numpy_generator

MAX_DISAGREEMENT = 10.0
"""How many times their usual distance apart both may land to be taken for the same happening."""

MAD = 1.4826  # of a normal distribution: its standard deviation over its median absolute deviation
OUTLIERS = 6.0  # times the usual distance beyond which a step is of another kind than those it was counted among
PASSES, FEW = 2, 700  # fits that look for those, and transitions that suffice for it
FINEST = 1e-3  # least tolerance
MIN_TRANSITIONS = 40
"""Transitions of a kind below which no process is fitted."""
MOST_COVARIANCES = 4e7  # entries of the covariances of all directions of one kind

Kind = tuple[tuple[int, ...], tuple[int, ...]]
"""Levels of the event dimensions before and after a step."""


class Transitions(NamedTuple):
    """Steps in inner coordinates: y and after (N, D), actions (N, A)."""

    y: Tensor
    actions: Tensor
    after: Tensor

    def rows(self, index: NDArray[np.int64]) -> "Transitions":
        return Transitions(*(x[torch.from_numpy(index)] for x in self))

    @property
    def inputs(self) -> NDArray[np.float64]:
        return torch.cat([self.y, self.actions], -1).numpy().astype(np.float64)


@dataclass(frozen=True)
class EventGP:
    """The process of one kind of event: what is added to each direction, and how near to the networks it must land."""

    before: Tensor  # (E,) levels of its kind
    then: Tensor  # (E,)
    mean: GaussianMean  # (·, I) -> (·, O)
    tolerance: Tensor  # (O,)

    @property
    def kind(self) -> Kind:
        return tuple(self.before.tolist()), tuple(self.then.tolist())

    def to(self, device: torch.device | str) -> "EventGP":
        before, then, tolerance = (x.to(device) for x in (self.before, self.then, self.tolerance))
        return EventGP(before, then, self.mean.to(device), tolerance)


class GPCorrection:
    """The processes of a model, applied to what its networks predict."""

    def __init__(self, kinds: Sequence[EventGP], directions: Tensor, events: "Events") -> None:
        self.kinds, self.directions, self.events = tuple(kinds), directions, events

    def apply(self, y: Tensor, actions: Tensor, after: Tensor) -> Tensor:
        """What follows y (K, n, D) under actions (K, n, A), where the networks said after (K, n, D)."""
        shape = after.shape
        y, after = y.reshape(-1, shape[-1]), after.reshape(-1, shape[-1]).clone()
        inputs = torch.cat([y, actions.reshape(len(y), -1)], -1)
        before, then = self.events.of(y), self.events.of(after)
        for event in self.kinds:
            here = (before == event.before).all(-1) & (then == event.then).all(-1)
            after = (self._apply_some if after.device.type == "cpu" else self._apply_any)(event, here, inputs, y, after)
        return after.view(shape)

    def _apply_some(self, event: EventGP, here: Tensor, inputs: Tensor, y: Tensor, after: Tensor) -> Tensor:
        """The rows that are of a kind."""
        rows = torch.nonzero(here)[:, 0]
        if len(rows):
            after[rows] = self._apply_one(event, inputs[rows], y[rows], after[rows])
        return after

    def _apply_any(self, event: EventGP, here: Tensor, inputs: Tensor, y: Tensor, after: Tensor) -> Tensor:
        """The same by work on every row, so that nothing waits for the device to tell which they are."""
        return torch.where(here[:, None], self._apply_one(event, inputs, y, after), after)

    def _apply_one(self, event: EventGP, inputs: Tensor, y: Tensor, after: Tensor) -> Tensor:
        landed, said = y[:, self.directions] + event.mean(inputs), after[:, self.directions]
        agreed = ((landed - said).abs() <= event.tolerance).all(-1, keepdim=True)
        return after.index_copy(-1, self.directions, torch.where(agreed, landed, said))

    def to(self, device: torch.device | str) -> "GPCorrection":
        return GPCorrection([x.to(device) for x in self.kinds], self.directions.to(device), self.events.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """All of it but the kinds, by name."""
        return {
            f"gp_correction/{i}/{name}": tensor
            for i, x in enumerate(self.kinds)
            for name, tensor in {**x.mean._asdict(), "tolerance": x.tolerance}.items()
        }

    @classmethod
    def of(cls, model: LatentDynamics, kinds: Sequence[Any], tensors: Mapping[str, Tensor]) -> "GPCorrection":
        """Undoes `tensors`; `kinds` as JSON keeps them."""
        made = []
        for i, (before, after) in enumerate(kinds):
            mean = GaussianMean(*(tensors[f"gp_correction/{i}/{name}"] for name in GaussianMean._fields))
            made.append(EventGP(_numbers(before), _numbers(after), mean, tensors[f"gp_correction/{i}/tolerance"]))
        return cls(made, directions_of(model), Events.in_model(model))


class Events(NamedTuple):
    """The directions that jump, and between which levels."""

    dims: Tensor  # (E,)
    levels: Tensor  # (E, L), far from everything where there are fewer

    @classmethod
    def in_model(cls, model: LatentDynamics) -> "Events":
        return cls(model.event_dims, model.levels.nan_to_num(nan=1e9))

    def of(self, y: Tensor) -> Tensor:
        """(n, E) the level that each is at in latents (n, D)."""
        return (y[:, self.dims, None] - self.levels).abs().argmin(-1)

    def to(self, device: torch.device | str) -> "Events":
        return Events(self.dims.to(device), self.levels.to(device))


def directions_of(model: LatentDynamics) -> Tensor:
    """(O,) the inner directions that move and do not jump."""
    return torch.nonzero((model.varying > 0) & (model.continuous > 0))[:, 0]


class EventGPFitter:
    """The processes of every kind of event that was seen often enough; they depend on the transitions alone.

    Args:
        config: how many transitions are used.
        model: for its directions and levels alone.
        transitions: all training transitions, on the CPU.
        seed: of the draws.
    """

    def __init__(self, config: GPCorrectionConfig, model: LatentDynamics, transitions: Transitions, seed: int) -> None:
        self.config, self.transitions = config, transitions
        self.directions = directions_of(model).cpu()
        self.events = Events.in_model(model).to("cpu")
        self.found: list[tuple[Kind, GaussianProcess, Tensor]] = []
        if not len(self.directions):
            return
        most = min(config.max_transitions, int((MOST_COVARIANCES / len(self.directions)) ** 0.5))
        before, after = (self.events.of(y).numpy() for y in (transitions.y, transitions.after))
        together = np.concatenate([before, after], 1)
        for row in np.unique(together, axis=0):
            index = np.flatnonzero((together == row).all(1))
            kind = tuple(row[: before.shape[1]].tolist()), tuple(row[before.shape[1] :].tolist())
            rng = numpy_generator(seed, "landings", str(kind))
            self._fit(kind, rng.permutation(index)[:most], derive_seed(seed, "landings", str(kind)))

    def _fit(self, kind: Kind, index: NDArray[np.int64], seed: int) -> None:
        """Again and again: what a process finds far off is of another kind that no event tells, and spoils the next."""
        c, rows = self.config, self.transitions.rows(index)
        inputs, moves = rows.inputs, (rows.after - rows.y)[:, self.directions].double().numpy()
        kept = np.ones(len(index), bool)

        def fit(most: int) -> GaussianProcess:
            return GaussianProcess(inputs[kept], moves[kept], FitPlan(c.num_hyperparameter_points, most, c.steps), seed)

        for _ in range(PASSES):
            if kept.sum() < MIN_TRANSITIONS:
                return
            off = np.abs(moves - fit(FEW).mean()(torch.from_numpy(inputs).float()).double().numpy())
            kept = (off <= np.maximum(OUTLIERS * np.median(off[kept], 0), FINEST)).all(1)
        if kept.sum() >= MIN_TRANSITIONS:
            self.found.append((kind, fit(len(index)), torch.from_numpy(index[kept])))

    def correction(self, said: Tensor) -> GPCorrection:
        """Those that are sharper than the networks.

        Args:
            said: (K, N, D) what the networks say of all training transitions: of their alternatives the nearest to what
                followed.
        """
        made = []
        for kind, process, index in self.found:
            truth = self.transitions.after[index][:, self.directions]
            of_networks = said[:, index][..., self.directions]
            landed = truth - torch.from_numpy(process.loo_residuals()).float()
            errors = [(x - truth).abs().flatten(0, -2).median(0).values for x in (landed, of_networks)]
            apart = MAD * (of_networks - landed).abs().flatten(0, 1).median(0).values
            if (errors[0] / errors[1].clamp(min=1e-9)).log().mean() < 0:
                tolerance = (MAX_DISAGREEMENT * apart).clamp(min=FINEST)
                made.append(EventGP(_numbers(kind[0]), _numbers(kind[1]), process.mean(), tolerance))
        return GPCorrection(made, self.directions, self.events)


def _numbers(levels: Sequence[int]) -> Tensor:
    return torch.tensor(levels, dtype=torch.int64)
