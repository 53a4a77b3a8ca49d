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
    """S gated recurrent units: (S, B, T, I) → hidden states (S, B, T, H), from a zero state. Multiplies in float32.

    The gates of `torch.nn.GRU` (Cho et al. 2014, with the reset gate after the recurrent product).
    """

    def __init__(self, num_networks: int, num_inputs: int, num_units: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(num_units)
        self.inputs = BatchedLinear(num_networks, num_inputs, 3 * num_units, generator)
        self.recurrent = nn.Parameter(_uniform((num_networks, num_units, 3 * num_units), bound, generator))
        self.candidate_bias = nn.Parameter(_uniform((num_networks, 1, num_units), bound, generator))

    def forward(self, x: Tensor) -> Tensor:
        steps_first = nn.functional.pad(x, (0, 1), value=1.0).permute(2, 0, 3, 1)
        recurrence = cast(Callable[..., Tensor], _Recurrence.apply)
        return recurrence(steps_first, self._weight()).permute(1, 3, 0, 2)

    def _weight(self) -> Tensor:
        """(S, 4H, I+1+H): from inputs, a constant 1 and the state to both gates and both parts of the candidate."""
        units = self.recurrent.shape[1]
        outer = torch.cat([self.inputs.weight, self.inputs.bias, torch.zeros_like(self.recurrent)], dim=1)
        absent = torch.zeros_like(self.inputs.weight)
        inner = torch.cat([absent, torch.zeros_like(self.inputs.bias), self.recurrent], dim=1)
        bias = nn.functional.pad(self.candidate_bias, (0, 0, absent.shape[1], units))
        gates = outer[..., : 2 * units] + inner[..., : 2 * units]
        both = [gates, outer[..., 2 * units :], inner[..., 2 * units :] + bias]
        return torch.cat(both, dim=-1).transpose(1, 2).contiguous()


class _Recurrence(torch.autograd.Function):
    """x (T, S, I+1, B) and weight (S, 4H, I+1+H) → (T, S, H, B), with its backward pass written out.

    By hand because autograd's graph of T small steps costs three to five times as much on a CPU. One product a step
    gives the reset gate, the update gate, and the candidate's parts from inputs and from the state. Sequences are the
    last dimension, so that each of the four is one block of memory, and all that a step needs stays in the cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        steps, networks, inputs, batch = x.shape
        units = weight.shape[1] // 4
        state = x.new_empty(steps + 1, networks, inputs + units, batch)
        state[:-1, :, :inputs] = x
        hidden = state[:, :, inputs:]
        hidden[0] = 0
        gates = x.new_empty(steps, networks, 4, units, batch)
        for t in range(steps):
            torch.bmm(weight, state[t], out=gates[t].view(networks, 4 * units, batch))
            gates[t, :, :2].sigmoid_()
            reset, update, candidate, pulled = gates[t].unbind(1)
            candidate.addcmul_(reset, pulled).tanh_()
            torch.lerp(candidate, hidden[t], update, out=hidden[t + 1])
        ctx.save_for_backward(state, gates, weight)
        return hidden[1:]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor]:
        state, gates, weight = ctx.saved_tensors
        steps, networks, _, units, batch = gates.shape
        inputs = weight.shape[2] - units
        first = 0 if ctx.needs_input_grad[0] else inputs
        grad_x = state.new_empty(steps, networks, inputs - first, batch)
        grad_weight, grad_gates = torch.zeros_like(weight), torch.empty_like(gates[0])
        flat = grad_gates.view(networks, 4 * units, batch)
        to_inputs, to_hidden = (w.contiguous() for w in weight[:, :, first:].mT.split([inputs - first, units], dim=1))
        grad_hidden, kept = gates.new_zeros(2, networks, units, batch).unbind()
        for t in range(steps - 1, -1, -1):
            grad_hidden += grad_outputs[0][t]
            torch.mul(grad_hidden, gates[t, :, 1], out=kept)
            _step_backward(grad_hidden, kept, state[t, :, inputs:], gates[t], grad_gates)
            grad_weight.baddbmm_(flat, state[t].mT)
            torch.baddbmm(kept, to_hidden, flat, out=grad_hidden)
            if not first:
                torch.bmm(to_inputs, flat, out=grad_x[t])
        return None if first else grad_x, grad_weight


def _step_backward(grad: Tensor, kept: Tensor, before: Tensor, gates: Tensor, out: Tensor) -> None:
    """From the gradient (S, H, B) of a state to that of the step's products (S, 4, H, B), written to `out`.

    Args:
        kept: its part that goes to the state before, past the gates.
        before: that state (S, H, B).
        gates: the step's gates and parts of the candidate (S, 4, H, B).
    """
    tanh_backward, sigmoid_backward = torch.ops.aten.tanh_backward, torch.ops.aten.sigmoid_backward
    reset, update, candidate, pulled = gates.unbind(1)
    to_reset, to_update, to_candidate, to_pulled = out.unbind(1)
    torch.sub(grad, kept, out=to_candidate)
    tanh_backward.grad_input(to_candidate, candidate, grad_input=to_candidate)
    torch.sub(before, candidate, out=to_update).mul_(grad)
    sigmoid_backward.grad_input(to_update, update, grad_input=to_update)
    torch.mul(to_candidate, reset, out=to_pulled)
    torch.mul(to_candidate, pulled, out=to_reset)
    sigmoid_backward.grad_input(to_reset, reset, grad_input=to_reset)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound
