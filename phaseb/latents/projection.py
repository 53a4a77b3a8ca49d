"""Which directions z_V has: what the sensors say, turned, and what only the encoder's latents add to it.

A latent learned from pictures carries the texture of pixels, which no dynamics can predict and every judge sees; a
latent learned from sensors bends what they say, and bent motion takes more data to learn. So what the sensors say is
kept as they say it, and a learned direction only where most of it is news. Where there is no sensor, all of it is.

Legend: N episodes, M observations, S sensors, E learned dimensions, F = S + E candidates, D latent dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from phaseb.runtime.seeding import torch_generator

NEWS = 0.15  # share of a learned direction's variance that the sensors must leave unexplained
CONSTANT = 1e-6  # variance, relative to the mean of all, below which a direction says nothing
MAX_SENSOR_DIMS = 64
"""Most directions of the sensors: the leading principal ones of more."""
NUM_FEATURES, BANDWIDTH = 400, 3.0  # of the random features that stand for any smooth function of the sensors
RIDGE = 1e-3


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

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.weight


def fit_projection(candidates: Sequence[Tensor], num_sensors: int, num_dims: int, seed: int) -> Projection:
    """Choose directions of the candidates (M_i, F) of N training episodes.

    The sensors' span comes first, whole up to MAX_SENSOR_DIMS directions. Then, up to `num_dims` in all, come
    directions of the learned latents of whose variance the sensors, through any smooth function, leave NEWS or more
    unexplained.
    They are turned at random, so that no dimension shows one sensor's resolution, but not whitened: that would raise
    noise where there is little else.
    """
    x = torch.cat(list(candidates)).double()
    mean, total = x.mean(0), x.shape[1]
    centred = x - mean
    parts = []
    if num_sensors:
        parts.append(_padded(principal(centred[:, :num_sensors])[:, :MAX_SENSOR_DIMS], 0, total))
    room = num_dims - sum(p.shape[1] for p in parts)
    if room > 0 and total > num_sensors:
        parts.append(_news([c.double() - mean for c in candidates], num_sensors, seed)[:, :room])
    chosen = torch.cat(parts, dim=1)
    size = chosen.shape[1]
    generator = torch_generator(seed, "readout", "turn")
    turn, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    readout = Projection(total, size)
    readout.mean.copy_(mean)
    readout.weight.copy_(chosen @ turn.to(chosen))
    return readout.to(candidates[0].device)


def principal(x: Tensor, least: float = 0.0) -> Tensor:
    """Principal directions (F, R) of centred rows (M, F), most variance first; those that say nothing are left out."""
    variance, directions = torch.linalg.eigh(x.T @ x / len(x))
    order = torch.argsort(variance, descending=True)
    floor = max(least, CONSTANT * float(variance.mean()), 1e-12)
    return directions[:, order[variance[order] > floor]]


def _news(candidates: list[Tensor], num_sensors: int, seed: int) -> Tensor:
    """Directions (F, R) of centred candidates along which learned latents say what the sensors do not."""
    x = torch.cat(candidates)
    sensors, learned = x[:, :num_sensors], x[:, num_sensors:]
    total, scale = x.shape[1], learned.std(0, correction=0).clamp_min(1e-12)
    if not num_sensors:
        return _padded(torch.diag(1.0 / scale), 0, total)
    episode = torch.cat([torch.full((len(c),), i % 2, device=x.device) for i, c in enumerate(candidates)])
    left = torch.empty_like(learned)
    for half in (0, 1):
        known, held_out = smooth_functions(sensors, seed), episode == half
        if held_out.all():  # one episode: nothing to hold out
            return x.new_zeros(total, 0)
        fitted = _ridge(known[~held_out], (learned / scale)[~held_out])
        left[held_out] = (learned / scale)[held_out] - known[held_out] @ fitted
    directions = principal(left - left.mean(0), least=NEWS) / scale[:, None]  # of unit variance and less: said in part
    said = _ridge(sensors, learned @ directions)  # what a linear reader knows already adds nothing
    return torch.cat([-said, directions])


def smooth_functions(x: Tensor, seed: int) -> Tensor:
    """Rows (M, S) and random Fourier features of them (Rahimi & Recht 2007), (M, S + NUM_FEATURES + 1)."""
    generator = torch_generator(seed, "readout", "features")
    frequency = torch.randn(x.shape[1], NUM_FEATURES, generator=generator, dtype=torch.float64).to(x) / BANDWIDTH
    phase = 2 * torch.pi * torch.rand(NUM_FEATURES, generator=generator, dtype=torch.float64).to(x)
    return torch.cat([x, torch.cos(x @ frequency + phase), torch.ones_like(x[:, :1])], dim=1)


def _ridge(x: Tensor, y: Tensor) -> Tensor:
    penalty = RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return torch.linalg.solve(x.T @ x + penalty, x.T @ y)


def _padded(directions: Tensor, first: int, total: int) -> Tensor:
    """Directions (F', R) of some candidates as directions (F, R) of all."""
    out = directions.new_zeros(total, directions.shape[1])
    out[first : first + len(directions)] = directions
    return out
