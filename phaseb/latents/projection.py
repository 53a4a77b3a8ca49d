"""Which directions z_V has: what the sensors say, turned, and what only the cameras tell of the future.

A latent learned from pictures carries the texture of pixels, which no dynamics can predict and every judge sees. So
what the sensors say is kept as they say it, and a learned direction only where it matters (`relevance`). Where there is
no sensor, all of them are kept.

Legend: M observations of an episode of T steps, S sensors, E learned dimensions, F = S + E candidates, D latent
dimensions, A actions.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from phaseb.latents.relevance import LAGS, Rows, relevant_directions
from phaseb.runtime.seeding import torch_generator

CONSTANT = 1e-6  # variance, relative to the mean of all, below which a direction says nothing
MAX_SENSOR_DIMS = 64
"""Most directions of the sensors: the leading principal ones of more."""
RIDGE = 1e-3
MAX_ROWS = 10_000
"""Most steps that decide which learned directions matter."""

Outcomes = Mapping[str, Tensor]
"""What was recorded beside an episode's observations: columns (T, ·) by name, such as actions and rewards."""


class Projection(nn.Module):
    """(x − mean) · weight of candidates (…, F): normalised sensors first, then learned latents. Linear, and frozen.

    Attributes:
        num_sensors: S.
    """

    mean: Tensor
    weight: Tensor

    def __init__(self, num_candidates: int, num_dims: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_candidates))
        self.register_buffer("weight", torch.eye(num_candidates, num_dims))

    @property
    def num_dims(self) -> int:
        return self.weight.shape[1]

    def first(self, num_candidates: int) -> "Projection":
        """The projection of the first candidates alone."""
        part = Projection(num_candidates, self.num_dims).to(self.mean.device)
        part.mean.copy_(self.mean[:num_candidates])
        part.weight.copy_(self.weight[:num_candidates])
        return part

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.weight


def fit_projection(
    candidates: Sequence[Tensor], num_sensors: int, num_dims: int, seed: int, outcomes: Sequence[Outcomes] = ()
) -> Projection:
    """Choose directions of the candidates (M_i, F) of training episodes.

    The sensors' span comes first, whole up to MAX_SENSOR_DIMS directions. Then come at most `num_dims` directions of
    the learned latents that tell what the sensors do not: of later sensors, and of the `outcomes` of each
    episode. They are turned at random, so that no dimension shows one sensor's resolution. Only the learned ones are
    scaled to unit variance.
    """
    x = torch.cat(list(candidates)).double()
    mean, total = x.mean(0), x.shape[1]
    centred = [c.double() - mean for c in candidates]
    parts = []
    if num_sensors:
        parts.append(_padded(principal(torch.cat(centred)[:, :num_sensors])[:, :MAX_SENSOR_DIMS], 0, total))
    if total > num_sensors:
        parts.append(_learned_directions(centred, num_sensors, outcomes, seed)[:, :num_dims])
    chosen = torch.cat(parts, dim=1)
    size = chosen.shape[1]
    generator = torch_generator(seed, "readout", "turn")
    turn, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    readout = Projection(total, size)
    readout.mean.copy_(mean)
    readout.weight.copy_(chosen @ turn.to(chosen))
    return readout.to(candidates[0].device)


def principal(x: Tensor) -> Tensor:
    """Principal directions (F, R) of centred rows (M, F), most variance first; those that say nothing are left out."""
    variance, directions = torch.linalg.eigh(x.T @ x / len(x))
    order = torch.argsort(variance, descending=True)
    floor = max(CONSTANT * float(variance.mean()), 1e-12)
    return directions[:, order[variance[order] > floor]]


def _learned_directions(
    candidates: Sequence[Tensor], num_sensors: int, outcomes: Sequence[Outcomes], seed: int
) -> Tensor:
    """Directions (F, R) of centred candidates along which learned latents say what the sensors do not."""
    x = torch.cat(list(candidates))
    sensors, learned = x[:, :num_sensors], x[:, num_sensors:]
    scale = learned.std(0, correction=0).clamp_min(1e-12)
    if not num_sensors:
        return _padded(torch.diag(1.0 / scale), 0, x.shape[1])
    rows = _rows(candidates, num_sensors, outcomes)
    directions = relevant_directions(rows, seed) / scale[:, None]
    if not directions.shape[1]:
        return x.new_zeros(x.shape[1], 0)
    moved = learned @ directions
    penalty = RIDGE * len(x) * torch.eye(num_sensors, dtype=x.dtype, device=x.device)
    said = torch.linalg.solve(sensors.T @ sensors + penalty, sensors.T @ moved)
    size = (moved - sensors @ said).std(0, correction=0).clamp_min(1e-12)
    return torch.cat([-said, directions]) / size


def _rows(candidates: Sequence[Tensor], num_sensors: int, outcomes: Sequence[Outcomes]) -> Rows:
    """Steps of episodes with what came after them: every one, or each k-th for at most MAX_ROWS."""
    names = sorted(set.intersection(*(set(o) for o in outcomes))) if outcomes else []
    stride = max(1, -(-sum(len(c) - 1 for c in candidates) // MAX_ROWS))
    steps = [torch.arange(0, len(c) - 1, stride, device=c.device) for c in candidates]
    seen = torch.cat([c[at] for c, at in zip(candidates, steps, strict=True)])
    followed = {
        f"sensors {lag} steps later": [
            c[(at + lag).clamp(max=len(c) - 1), :num_sensors] for c, at in zip(candidates, steps, strict=True)
        ]
        for lag in LAGS
    }
    for name in names:
        means = [_next_mean(o[name].to(seen), LAGS[0]) for o in outcomes]
        followed[name] = [mean[at] for mean, at in zip(means, steps, strict=True)]
    return Rows(
        sensors=_standard(seen[:, :num_sensors]),
        learned=seen[:, num_sensors:] / seen[:, num_sensors:].std(0, correction=0).clamp_min(1e-12),
        outcomes={name: _standard(torch.cat(parts)) for name, parts in followed.items()},
        episode=torch.cat([torch.full_like(at, i) for i, at in enumerate(steps)]),
        time=torch.cat([at.to(seen) / (len(c) - 1) for c, at in zip(candidates, steps, strict=True)]),
    )


def _next_mean(x: Tensor, steps: int) -> Tensor:
    """Means of the next `steps` rows, or of as many as there are, of x (T, ·)."""
    total = torch.cat([torch.zeros_like(x[:1]), x.cumsum(0)])
    first = torch.arange(len(x), device=x.device)
    last = (first + steps).clamp(max=len(x))
    return (total[last] - total[first]) / (last - first)[:, None]


def _standard(x: Tensor) -> Tensor:
    """Columns that move, centred and in standard deviations."""
    std, mean = torch.std_mean(x, dim=0, correction=0)
    moves = std > CONSTANT**0.5 * std.max()
    return (x[:, moves] - mean[moves]) / std[moves]


def _padded(directions: Tensor, first: int, total: int) -> Tensor:
    """Directions (F', R) of some candidates as directions (F, R) of all."""
    out = directions.new_zeros(total, directions.shape[1])
    out[first : first + len(directions)] = directions
    return out
