"""Gaussian process regression (Rasmussen & Williams 2006, algorithm 2.1) of several outputs at once.

Each output has hyperparameters of its own, found by maximum a posteriori: what few transitions tell without a network's
appetite for data, and how little they tell elsewhere. The kernel is exp(-½‖x − x'‖²), every input over a length scale.

Shapes: N rows, I inputs, O outputs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.runtime.seeding import torch_generator

Floats = NDArray[np.floating]
JITTER = 1e-6  # a variance, of an output's spread squared: single precision resolves no smaller one
STILL = 1e-3  # an input that varies less than this says nothing
LEAST_SIZE = 1e-9  # of a residual, relative to its output: less is rounding
LEAST_NOISE = 1e-3  # of an output's spread: keeps single precision exact enough
RIDGE = 1e-2
CACHED_ROWS = 128  # at a time on CPUs: their kernel with a thousand known ones is half a megabyte
BLOCK = 128  # columns of a triangular matrix that are multiplied at once, by the rows that are not zero


@dataclass(frozen=True)
class FitPlan:
    """How hyperparameters are found.

    Attributes:
        rows: most rows that they are found on.
        kept: most rows that predictions are conditioned on.
        steps: of Adam.
        learning_rate: of Adam, in logarithms.
        prior_mean: (O,) that outputs return to far from all rows; a ridge regression where None.
    """

    rows: int = 250
    kept: int = 700
    steps: int = 60
    learning_rate: float = 0.15
    prior_mean: Floats | None = None


class GaussianMean(NamedTuple):
    """The mean of a fitted process in single precision, for many rows: x (n, I) -> (n, O)."""

    shift: Tensor  # (I,)
    scale: Tensor  # (I,)
    weights: Tensor  # (I + 1, O) of the linear part
    rate: Tensor  # (O, I) one over the length scales
    known: Tensor  # (O, I + 2, N) the rows known, over the length scales, see `_exponents`
    solved: Tensor  # (O, N, 1) with the signal's variance and the outputs' sizes in it

    @classmethod
    def of(
        cls, shift: Tensor, scale: Tensor, weights: Tensor, rate: Tensor, places: Tensor, solved: Tensor
    ) -> "GaussianMean":
        """Of the rows known (O, N, I), which are kept with what `_exponents` multiplies."""
        squares = -0.5 * places.square().sum(-1, keepdim=True)
        known = torch.cat([places, torch.ones_like(squares), squares], -1).transpose(1, 2)
        found = (shift, scale, weights, rate, known, solved)
        return cls(*(x.reshape(-1).clone().view(x.shape) for x in found))  # strides change the last digits

    def __call__(self, x: Tensor) -> Tensor:
        rows = (x - self.shift) * self.scale
        found = torch.addmm(self.weights[-1], rows, self.weights[:-1])
        if x.device.type != "cpu":
            near = _exponents(rows * self.rate[:, None], self.known).exp_()
            return found + (near @ self.solved)[..., 0].T
        for first in range(0, len(rows), CACHED_ROWS):
            part, into = rows[first : first + CACHED_ROWS], found[first : first + CACHED_ROWS]
            for output, (rate, known, solved) in enumerate(zip(self.rate, self.known, self.solved, strict=True)):
                into[:, output] += (_exponents(part * rate, known).exp_() @ solved)[:, 0]
        return found

    def to(self, device: torch.device | str) -> "GaussianMean":
        return GaussianMean(*(x.to(device) for x in self))


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    """(O, n, N) of exp(-½‖x − x'‖²) for rows x (O, n, I) and x' (O, N, I)."""
    squares = a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None]
    return squares.baddbmm_(a, b.transpose(1, 2), alpha=-2).clamp_(min=0).mul_(-0.5).exp_()


def _with_diagonal(matrices: Tensor, added: Tensor) -> Tensor:
    """Matrices (O, N, N) with a number each (O,) added to their diagonals."""
    found = matrices.clone()
    found.diagonal(dim1=1, dim2=2).add_(added[:, None])
    return found


def _squared_norms(rows: Tensor, upper: Tensor) -> Tensor:
    """(n,) squared norms of the rows of `rows` (n, N) times an upper triangular matrix (N, N)."""
    found = rows.new_zeros(len(rows))
    for first in range(0, len(upper), BLOCK):
        last = first + BLOCK
        found += (rows[:, :last] @ upper[:last, first:last]).square_().sum(-1)
    return found


def _exponents(rows: Tensor, known: Tensor) -> Tensor:
    """(…, n, N) of -½‖x − x'‖² for rows x (…, n, I) and known ones x' (…, I + 2, N): in one product, for what passes
    over all pairs is what a kernel costs."""
    squares = -0.5 * rows.square().sum(-1, keepdim=True)
    return torch.cat([rows, squares, torch.ones_like(squares)], -1) @ known


class GaussianProcess:
    """Fitted to x (N, I) and y (N, O); the rows are drawn by `seed` where there are more than the plan keeps."""

    def __init__(self, x: Floats, y: Floats, plan: FitPlan, seed: int) -> None:
        rows, targets = torch.as_tensor(x, dtype=torch.float64), torch.as_tensor(y, dtype=torch.float64)
        generator = torch_generator(seed, "gaussian process")
        self.shift, spread = rows.mean(0), rows.std(0, correction=0)
        self.scale = torch.where(spread > STILL, 1 / spread.clamp(min=STILL), 0.0)
        rows = (rows - self.shift) * self.scale
        self._set_mean(rows, targets, plan.prior_mean)
        residual = targets - self._mean(rows)
        least = (LEAST_SIZE * targets.abs().amax(0)).clamp(min=torch.finfo(targets.dtype).tiny)
        self.size = torch.maximum(residual.square().mean(0).sqrt(), least)
        order = torch.randperm(len(rows), generator=generator)
        few, kept = order[: plan.rows], order[: plan.kept]
        residual = residual / self.size
        self._kept = kept
        self._find_hyperparameters(rows[few], residual[few], plan)
        self._condition(rows[kept], residual[kept])

    def _set_mean(self, rows: Tensor, targets: Tensor, prior: Floats | None) -> None:
        wide = torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], 1)
        if prior is None:
            ridge = RIDGE * torch.eye(wide.shape[1], dtype=rows.dtype)
            self.weights = torch.linalg.solve(wide.T @ wide + ridge, wide.T @ targets)
        else:
            self.weights = torch.zeros(wide.shape[1], targets.shape[1], dtype=rows.dtype)
            self.weights[-1] = torch.as_tensor(prior, dtype=rows.dtype)

    def _mean(self, rows: Tensor) -> Tensor:
        return rows @ self.weights[:-1] + self.weights[-1]

    def _find_hyperparameters(self, x: Tensor, y: Tensor, plan: FitPlan) -> None:
        inputs, outputs = x.shape[1], y.shape[1]
        usual = math.log(math.sqrt(max(1, int((self.scale > 0).sum()))))
        length = torch.full((outputs, inputs), usual, dtype=x.dtype)
        signal, noise = (torch.full((outputs,), math.log(v), dtype=x.dtype) for v in (1.0, 0.15))
        self._parameters = [length, signal, noise]
        optimiser = torch.optim.Adam(self._parameters, lr=plan.learning_rate)
        for _ in range(plan.steps):
            length.grad, signal.grad, noise.grad = self._likelihood_gradients(x, y)
            length.grad += (length - usual) / 0.8**2
            signal.grad += signal / 0.5**2
            noise.grad += (noise - math.log(0.15)) / 1.5**2
            optimiser.step()
            noise.clamp_(min=math.log(LEAST_NOISE))

    def _likelihood_gradients(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the negative log likelihood of y (N, O), by the logarithms of lengths (O, I), signals and noises (O,).

        Equation 5.9, written out: autograd's way back through the factors costs several times as much.
        """
        places = self._coordinates(x)
        kernel = self._kernel(places, places)
        spread = (2 * self._parameters[2]).exp()
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(_with_diagonal(kernel, spread + JITTER)))
        solved = inverse @ y.T[..., None]
        pull = torch.baddbmm(inverse, solved, solved.transpose(1, 2), alpha=-1)
        to_noise = spread * pull.diagonal(dim1=1, dim2=2).sum(-1)
        pull *= kernel
        total = pull.sum(-1, keepdim=True)
        return (places * (total * places - pull @ places)).sum(1), total.sum((1, 2)), to_noise

    def _condition(self, x: Tensor, y: Tensor) -> None:
        factor = torch.linalg.cholesky(self._covariance(x))
        identity = torch.eye(len(x), dtype=x.dtype).expand(y.shape[1], -1, -1)
        self._solved = torch.cholesky_solve(y.T[..., None], factor).float()
        self._whiten = torch.linalg.solve_triangular(factor, identity, upper=False).transpose(1, 2).float()
        self.noise = self._parameters[2].exp() * self.size
        self._parameters = [p.float() for p in self._parameters]
        self._places = self._coordinates(x.float())

    def tensors(self) -> dict[str, Tensor]:
        """All that predictions need, by name; `of` takes it."""
        length, signal, noise = self._parameters
        return {
            "shift": self.shift,
            "scale": self.scale,
            "weights": self.weights,
            "size": self.size,
            "noise": self.noise,
            "log_length": length,
            "log_signal": signal,
            "log_noise": noise,
            "solved": self._solved,
            "whiten": self._whiten,
            "places": self._places,
            "kept": self._kept,
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The process whose `tensors` these are, with the strides that they had: it predicts the same to the bit."""
        found = cls.__new__(cls)
        found.shift, found.scale, found.weights = tensors["shift"], tensors["scale"], tensors["weights"]
        found.size, found.noise, found._kept = tensors["size"], tensors["noise"], tensors["kept"]
        found._parameters = [tensors[name] for name in ("log_length", "log_signal", "log_noise")]
        found._solved, found._whiten, found._places = tensors["solved"], tensors["whiten"], tensors["places"]
        return found

    def mean(self) -> GaussianMean:
        """The mean alone, ready for many rows."""
        gain = (2 * self._parameters[1]).exp() * self.size.float()
        return GaussianMean.of(
            self.shift.float(),
            self.scale.float(),
            self.weights.float(),
            (-self._parameters[0]).exp(),
            self._places,
            self._solved * gain[:, None, None],
        )

    def loo_residuals(self) -> Floats:
        """How far the mean is off at each row it is conditioned on, were that row left out (eq. 5.12): truth less
        prediction, (N, O) in the order of the rows given, of which all must have been kept."""
        inverse = self._whiten.square().sum(-1)
        off = (self._solved[..., 0] / inverse).T.double() * self.size
        found = torch.empty_like(off)
        found[self._kept] = off
        return found.numpy()

    def _coordinates(self, x: Tensor) -> Tensor:
        """(O, N, I) of rows (N, I)."""
        return x * (-self._parameters[0]).exp()[:, None]

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        gain = (2 * self._parameters[1]).exp()[:, None, None]
        return _correlations(a, b).mul_(gain)

    def _covariance(self, x: Tensor) -> Tensor:
        places = self._coordinates(x)
        return _with_diagonal(self._kernel(places, places), (2 * self._parameters[2]).exp() + JITTER)

    @torch.no_grad()
    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation, each (N, O), of the function itself, without noise, at rows (N, I).

        The variance is at least JITTER, which was added to factor the covariance.
        """
        rows = (torch.as_tensor(x, dtype=torch.float64) - self.shift) * self.scale
        places = self._coordinates(rows.float())
        near, explained = (places.new_empty(places.shape[:2]) for _ in range(2))
        for output in range(len(places)):
            for first in range(0, len(rows), CACHED_ROWS):
                here = slice(first, first + CACHED_ROWS)
                kernel = _correlations(places[output : output + 1, here], self._places[output : output + 1])[0]
                near[output, here] = (kernel @ self._solved[output])[:, 0]
                explained[output, here] = _squared_norms(kernel, self._whiten[output])
        gain = (2 * self._parameters[1]).exp()[:, None]
        mean = self._mean(rows) + (gain * near).T.double() * self.size
        variance = (gain - gain.square() * explained).clamp(min=JITTER)
        return mean.numpy(), (variance.sqrt().T.double() * self.size).numpy()
