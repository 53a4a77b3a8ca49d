"""Frozen standardisation of latents: statistics of the training split, a floor on the standard deviation."""

import numpy as np
import torch
from torch import Tensor, nn

from phaseb.episodes.resolution import spread_of


class Standardizer(nn.Module):
    """(x - mean) / max(std, floor) a dimension, with statistics that are set once and saved with the encoder.

    Args:
        num_dims: D.
        dtype: of the statistics, and of what `inverse` gives.

    Attributes:
        mean, std: (D,) the statistics used; a dimension without variance maps to 0 and stays finite.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_dims: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_dims, dtype=dtype))
        self.register_buffer("std", torch.ones(num_dims, dtype=dtype))

    def fit(self, x: Tensor, floor: float) -> "Standardizer":
        """Freeze the statistics of `x` (M, D); `floor` is relative to the mean std of all dimensions."""
        std, mean = torch.std_mean(x.double(), dim=0, correction=0)
        least = floor * std.mean()
        least = least if least > 0 else torch.ones_like(least)
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(least))
        return self

    def fit_units(self, x: Tensor) -> "Standardizer":
        """Freeze the statistics of `x` (M, D) whose dimensions have units of their own: none sets another's floor."""
        rows = x.cpu().numpy()
        self.mean.copy_(torch.from_numpy(rows.mean(axis=0, dtype=np.float64)))
        self.std.copy_(torch.from_numpy(spread_of(rows)))
        return self

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def inverse(self, z: Tensor) -> Tensor:
        """Raw latents of standardised ones."""
        return z * self.std + self.mean
