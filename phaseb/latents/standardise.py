"""Frozen standardisation of latents: statistics of the training split, a floor on the standard deviation."""

import torch
from torch import Tensor, nn


class Standardizer(nn.Module):
    """(x - mean) / max(std, floor) a dimension, with statistics that are set once and saved with the encoder.

    Attributes:
        mean, std: (D,) the statistics used; a dimension without variance maps to 0 and stays finite.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_dims: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_dims))
        self.register_buffer("std", torch.ones(num_dims))

    def fit(self, x: Tensor, floor: float) -> "Standardizer":
        """Freeze the statistics of `x` (M, D); `floor` is relative to the mean std of all dimensions."""
        std, mean = torch.std_mean(x.double(), dim=0, correction=0)
        least = floor * std.mean()
        least = least if least > 0 else torch.ones_like(least)
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(least))
        return self

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def inverse(self, z: Tensor) -> Tensor:
        """Raw latents of standardised ones."""
        return z * self.std + self.mean
