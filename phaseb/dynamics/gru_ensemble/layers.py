"""Layers of K independent networks at once: every parameter has a leading dimension K, one batched GEMM computes all.

Legend: K members, B rows, I inputs, O outputs.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from phaseb.nn.precision import batched_linear
from phaseb.runtime.seeding import torch_generator


class MemberLinear(nn.Module):
    """K affine maps: x (K, B, I) -> (K, B, O). Member k's start depends on (seed, name, k) alone, not on K."""

    def __init__(
        self, num_members: int, inputs: int, outputs: int, seed: int, name: str, scale: float = 1.0, bias: bool = True
    ) -> None:
        super().__init__()
        bound = scale / math.sqrt(max(inputs, 1))
        draws = [torch_generator(seed, "weights", name, k) for k in range(num_members)]
        weight = [torch.empty(inputs, outputs).uniform_(-bound, bound, generator=g) for g in draws]
        self.weight = nn.Parameter(torch.stack(weight))
        self.bias = nn.Parameter(torch.zeros(num_members, 1, outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return batched_linear(self.bias, x, self.weight)


class MemberNorm(nn.Module):
    """Gain and shift of a layer normalisation (Ba et al. 2016) for each of K members, folded into what reads it."""

    def __init__(self, num_members: int, size: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_members, 1, size))
        self.shift = nn.Parameter(torch.zeros(num_members, 1, size))

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The next layer's weight and bias for what is normalised without gain and shift: less work on many rows."""
        return self.gain.transpose(1, 2) * weight, torch.baddbmm(bias, self.shift, weight)


class MemberBlock(nn.Module):
    """A residual block for each of K members: x + W_2 silu(W_1 LN(x)), (K, B, U) -> (K, B, U)."""

    def __init__(self, num_members: int, size: int, layer_norm: bool, seed: int, name: str) -> None:
        super().__init__()
        self.norm = MemberNorm(num_members, size) if layer_norm else nn.Identity()
        self.first = MemberLinear(num_members, size, size, seed, f"{name}_first")
        self.second = MemberLinear(num_members, size, size, seed, f"{name}_second")

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = cast(Tensor, self.first.weight), cast(Tensor, self.first.bias)
        normed = x
        if isinstance(self.norm, MemberNorm):
            normed = nn.functional.layer_norm(x, x.shape[-1:])
            weight, bias = self.norm.folded(weight, bias)
        y: Tensor = x + self.second(nn.functional.silu(batched_linear(bias, normed, weight)))
        return y
