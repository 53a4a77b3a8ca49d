"""The dynamics' weights with all constants folded in, and one step made of them: fewer and larger operations.

The gain and shift of a normalisation go into the layer that reads it, the scale of a step into the head, the factor of
tanh(x) = 2 σ(2x) − 1 into what makes x (torch's sigmoid is several times faster than its tanh on CPUs). Folding is made
of ordinary operations, once a sequence: gradients reach the parameters through it.
Legend: K members, B rows, D latent, H hidden, U stream, M modes, E event dimensions, L levels.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import silu

from phaseb.dynamics.gru_ensemble.layers import MemberBlock, MemberNorm
from phaseb.dynamics.gru_ensemble.network import LatentDynamics

EPS = 1e-5  # of layer normalisation, torch's default


class Block(NamedTuple):
    """x + silu(LN(x) · w_in + b_in) · w_out + b_out, normalisation without gain and shift of its own."""

    w_in: Tensor
    b_in: Tensor
    w_out: Tensor
    b_out: Tensor


class FoldedWeights(NamedTuple):
    """All that a step multiplies with: maps (K, ·, ·), biases (K, 1, ·).

    Columns of `w_a`, `b_a` and `w_y`: reset, update, twice the new state, stream. Columns of `w_h` and `b_h`: twice
    the new state, reset, update; so that gradients of both are slices of one tensor.
    """

    w_a: Tensor
    b_a: Tensor
    w_y: Tensor
    w_h: Tensor
    b_h: Tensor
    w_stream: Tensor
    b_stream: Tensor
    w_head: Tensor
    b_head: Tensor
    blocks: tuple[Block, ...]

    def of_step(self) -> tuple[Tensor, ...]:
        """Every tensor but those of the actions, which all steps share; `packed` undoes it."""
        return (*self[2:-1], *(tensor for block in self.blocks for tensor in block))

    @classmethod
    def packed(cls, flat: tuple[Tensor, ...]) -> "FoldedWeights":
        """With the actions' own left empty."""
        blocks = tuple(Block(*flat[i : i + 4]) for i in range(7, len(flat), 4))
        w_y, w_h, b_h, w_stream, b_stream, w_head, b_head = flat[:7]
        none = w_y.new_empty(0)
        return cls(none, none, w_y, w_h, b_h, w_stream, b_stream, w_head, b_head, blocks)


class StepConstants(NamedTuple):
    """What a step needs to know beside the weights; nothing of it is learned."""

    hidden: int
    modes: int
    normalised: bool
    clamp: Tensor | None  # (D,) largest step
    bounds: tuple[Tensor, Tensor] | None
    logits: slice  # of the head's outputs: each alternative's levels of the event dimensions
    impossible: Tensor  # (M·E·L,) added to their logits
    levels: Tensor  # (E, L), zeros for padding
    event_dims: Tensor
    continuous: Tensor
    spread: Tensor


class StepActivations(NamedTuple):
    """All that one step makes; what the way back reads as well. Each (K, B, ·)."""

    hidden: Tensor
    gates: Tensor  # reset and update
    new: Tensor
    recurrent: Tensor  # the part of twice the new state that the reset gate lets through
    streams: list[Tensor]  # before each block, and after the last
    normed: list[Tensor]
    moments: list[tuple[Tensor, Tensor]]
    pre: list[Tensor]  # before a block's silu
    active: list[Tensor]  # and after
    features: Tensor
    outputs: Tensor  # of the head
    unbounded: Tensor  # candidates before bounds and events, (K, B, M, D)
    candidates: Tensor


def fold_weights(model: LatentDynamics) -> FoldedWeights:
    """The weights of a model as they are now."""
    h, steps = model.hidden_size, model.num_modes * model.latent_size
    one = model.step_scale.new_ones
    factor = (model.step_scale * model.varying).repeat(model.num_modes)
    of_head = torch.cat([factor, one(model.head.weight.shape[-1] - steps)])
    of_input = torch.cat([one(2 * h), 2 * one(h), one(model.from_y.weight.shape[-1] - 3 * h)])
    of_hidden = torch.cat([2 * one(h), one(2 * h)])
    biases = [cast(Tensor, layer.bias) for layer in (model.from_a, model.from_h, model.to_stream, model.head)]
    return FoldedWeights(
        model.from_a.weight * of_input,
        biases[0] * of_input,
        model.from_y.weight * of_input,
        model.from_h.weight.roll(h, -1) * of_hidden,
        biases[1].roll(h, -1) * of_hidden,
        model.to_stream.weight,
        biases[2],
        model.head.weight * of_head,
        biases[3] * of_head,
        tuple(_fold_block(cast(MemberBlock, block)) for block in model.blocks),
    )


def _fold_block(block: MemberBlock) -> Block:
    first, second = block.first, block.second
    weight, bias = cast(Tensor, first.weight), cast(Tensor, first.bias)
    if isinstance(block.norm, MemberNorm):
        weight, bias = block.norm.folded(weight, bias)
    return Block(weight, bias, second.weight, cast(Tensor, second.bias))


def step_constants(model: LatentDynamics) -> StepConstants:
    """The constants of a model's steps."""
    first = model.num_modes * model.latent_size + model.extra_sizes[0]
    clamp = model.step_bound.nan_to_num(posinf=1e30) * model.varying if model.clamped else None
    return StepConstants(
        hidden=model.hidden_size,
        modes=model.num_modes,
        normalised=any(isinstance(module, MemberNorm) for module in model.modules()),
        clamp=clamp,
        bounds=(model.low, model.high) if model.bounded else None,
        logits=slice(first, first + model.extra_sizes[1]),
        impossible=model.levels.isnan().flatten().repeat(model.num_modes) * -1e9,
        levels=model.levels.nan_to_num(),
        event_dims=model.event_dims,
        continuous=model.continuous,
        spread=model.spread,
    )


def fused_step(w: FoldedWeights, f: StepConstants, x: Tensor, h: Tensor, projected: Tensor) -> StepActivations:
    """One step from latents x (K, B, D) and hidden state h (K, B, H); `projected` is the actions' part of the input."""
    size = f.hidden
    mixed = torch.baddbmm(projected, x, w.w_y)
    recurrent, gates_h = torch.split(torch.baddbmm(w.b_h, h, w.w_h), [size, 2 * size], -1)
    gates_x, new_x, stream_x = torch.split(mixed, [2 * size, size, mixed.shape[-1] - 3 * size], -1)
    gates = gates_x.add(gates_h).sigmoid_()
    reset, update = gates.chunk(2, -1)
    new = torch.addcmul(new_x, reset, recurrent).sigmoid_().mul_(2).sub_(1)
    h = torch.lerp(new, h, update)
    streams = [torch.baddbmm(stream_x, h, w.w_stream).add_(w.b_stream)]
    normed, moments, pre, active = [], [], [], []
    for block in w.blocks:
        u = streams[-1]
        if f.normalised:
            v, mean, rstd = torch.native_layer_norm(u, u.shape[-1:], None, None, EPS)
            moments.append((mean, rstd))
        else:
            v = u
        normed.append(v)
        pre.append(torch.baddbmm(block.b_in, v, block.w_in))
        active.append(silu(pre[-1]))
        streams.append(torch.baddbmm(u, active[-1], block.w_out).add_(block.b_out))
    features = streams[-1] if w.blocks else silu(streams[-1])
    outputs = torch.baddbmm(w.b_head, features, w.w_head)
    unbounded, candidates = _candidates(f, x, outputs)
    return StepActivations(
        h, gates, new, recurrent, streams, normed, moments, pre, active, features, outputs, unbounded, candidates
    )


def _candidates(f: StepConstants, x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """The alternatives (K, B, M, D) before and after bounds and events."""
    d = x.shape[-1]
    steps = outputs[..., : f.modes * d].view(*x.shape[:2], f.modes, d)
    if f.clamp is not None:
        steps = torch.clamp(steps, -f.clamp, f.clamp)
    unbounded = after = steps + x[:, :, None]
    if f.bounds is not None:
        after = torch.clamp(after, *f.bounds)
    if len(f.event_dims):
        level = (outputs[..., f.logits] + f.impossible).view(*x.shape[:2], f.modes, *f.levels.shape).argmax(-1)
        jumped = f.levels.expand(*level.shape, -1).gather(-1, level[..., None]).squeeze(-1)
        after = after.index_copy(-1, f.event_dims, jumped)
    return unbounded, after


def nearest(f: StepConstants, after: Tensor, target: Tensor) -> Tensor:
    """(K, B) which of the alternatives (K, B, M, D) is nearest to a target (K, B, D)."""
    return torch.linalg.vector_norm((after - target[:, :, None]).div_(f.spread), 1, dim=-1).argmin(-1)
