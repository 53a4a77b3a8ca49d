"""Layers for several networks at once: each parameter carries a leading dimension S, one slice a network.

Cross-fitting trains one network a fold. As slices of one stack they share every kernel launch, so five small
recurrent networks train in the time of one. Slices never mix: network s sees input slice s only.

Shapes: S networks, T steps, B sequences, I inputs, H hidden units.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from phaseb.nn.precision import batched_linear


class BatchedLinear(nn.Module):
    """S affine maps: (S, ..., I) → (S, ..., O), initialised as `torch.nn.Linear`."""

    def __init__(self, num_networks: int, num_inputs: int, num_outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(num_inputs, 1))
        self.weight = nn.Parameter(_uniform((num_networks, num_inputs, num_outputs), bound, generator))
        self.bias = nn.Parameter(_uniform((num_networks, 1, num_outputs), bound, generator))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        return batched_linear(self.bias, flat, self.weight).reshape(*x.shape[:-1], self.weight.shape[-1])


class BatchedGRU(nn.Module):
    """S gated recurrent units: (S, B, T, I) → hidden states (S, B, T, H), from a zero state.

    The gates of `torch.nn.GRU` (Cho et al. 2014, with the reset gate after the recurrent product).
    """

    def __init__(self, num_networks: int, num_inputs: int, num_units: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(num_units)
        self.inputs = BatchedLinear(num_networks, num_inputs, 3 * num_units, generator)
        self.recurrent = nn.Parameter(_uniform((num_networks, num_units, 3 * num_units), bound, generator))
        self.candidate_bias = nn.Parameter(_uniform((num_networks, 1, num_units), bound, generator))

    def forward(self, x: Tensor) -> Tensor:
        projected = self.inputs(x.permute(0, 2, 1, 3)).transpose(0, 1).contiguous()
        recurrence = cast(Callable[..., Tensor], _Recurrence.apply)
        return recurrence(projected, self.recurrent, self.candidate_bias).permute(1, 2, 0, 3)


class _Recurrence(torch.autograd.Function):
    """The recurrence alone, (T, S, B, 3H) → (T, S, B, H), with its backward pass written out.

    By hand because autograd's graph of T small steps costs three to five times as much on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, recurrent: Tensor, candidate_bias: Tensor) -> Tensor:
        steps, networks, batch, width = x.shape
        units = width // 3
        hidden = x.new_zeros(steps + 1, networks, batch, units)
        gates = x.new_empty(steps, networks, batch, 2 * units)
        candidate = x.new_empty(steps, networks, batch, units)
        pulled = x.new_empty(steps, networks, batch, units)
        for t in range(steps):
            recurrence = torch.bmm(hidden[t], recurrent)
            torch.add(x[t, ..., : 2 * units], recurrence[..., : 2 * units], out=gates[t]).sigmoid_()
            torch.add(recurrence[..., 2 * units :], candidate_bias, out=pulled[t])
            torch.addcmul(x[t, ..., 2 * units :], gates[t, ..., :units], pulled[t], out=candidate[t]).tanh_()
            torch.lerp(candidate[t], hidden[t], gates[t, ..., units:], out=hidden[t + 1])
        ctx.save_for_backward(hidden, gates, candidate, pulled, recurrent)
        return hidden[1:]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, gates, candidate, pulled, recurrent = ctx.saved_tensors
        steps, networks, batch, units = candidate.shape
        reset, update, before = gates[..., :units], gates[..., units:], hidden[:-1]
        to_candidate = (1 - update) * (1 - candidate * candidate)
        to_update = (before - candidate) * update * (1 - update)
        to_reset = pulled * reset * (1 - reset)
        grad_x = before.new_empty(steps, networks, batch, 3 * units)
        grad_product = torch.empty_like(grad_x)
        transposed = recurrent.transpose(1, 2).contiguous()
        grad_hidden = before.new_zeros(networks, batch, units)
        for t in range(steps - 1, -1, -1):
            grad_hidden = grad_hidden + grad_outputs[0][t]
            through = torch.mul(grad_hidden, to_candidate[t], out=grad_x[t, ..., 2 * units :])
            torch.mul(through, to_reset[t], out=grad_x[t, ..., :units])
            torch.mul(grad_hidden, to_update[t], out=grad_x[t, ..., units : 2 * units])
            grad_product[t, ..., : 2 * units] = grad_x[t, ..., : 2 * units]
            torch.mul(through, reset[t], out=grad_product[t, ..., 2 * units :])
            grad_hidden = torch.baddbmm(grad_hidden * update[t], grad_product[t], transposed)
        grad_recurrent = torch.bmm(_rows(before).transpose(1, 2), _rows(grad_product))
        return grad_x, grad_recurrent, grad_product[..., 2 * units :].sum((0, 2))[:, None]


def _rows(x: Tensor) -> Tensor:
    return x.transpose(0, 1).reshape(x.shape[1], -1, x.shape[-1])


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound
