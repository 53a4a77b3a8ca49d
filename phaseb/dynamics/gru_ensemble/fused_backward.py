"""The way back of a fused free run: the gradient through time step by step, each weight's over all steps at once.

Legend: K members, B rows, T steps, D latent, H hidden, U stream, M modes, E event dimensions, L levels.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from phaseb.dynamics.gru_ensemble.fused_step import FoldedWeights, StepActivations, StepConstants

if TYPE_CHECKING:
    from phaseb.dynamics.gru_ensemble.fused_rollout import Tape


class LocalJacobians(NamedTuple):
    """Factors of the chain rule that need no recursion, made for all steps at once, then a step each.

    Attributes:
        gates: (K, B, 4, H) of twice the recurrent part of the new state, reset, update and twice the new state,
            before they are squashed, with respect to the hidden state after the step.
        keep: (K, B, H) of the hidden state before the step, likewise.
        free: (K, B, M, D) 1 where a candidate follows its step.
        steps: the same where the step is not at its clamp either.
        taken: (K, B, M, 1) 1 at the alternative taken; ones where there is one.
        odds: (K, B, E, L) of the levels.
    """

    gates: tuple[Tensor, ...]
    keep: tuple[Tensor, ...]
    free: tuple[Tensor, ...]
    steps: tuple[Tensor, ...]
    taken: tuple[Tensor, ...]
    odds: tuple[Tensor, ...]


class LayerGradients(NamedTuple):
    """Gradients of what every weight's product made, one tensor a step, the last step first."""

    mixed: list[Tensor]  # twice recurrent new, reset, update, twice new, stream
    out: list[Tensor]
    pre: list[list[Tensor]]  # of a step's blocks
    stream: list[list[Tensor]]


class TransposedWeights(NamedTuple):
    """The transposed maps."""

    y: Tensor
    h: Tensor
    stream: Tensor
    head: Tensor
    blocks: list[tuple[Tensor, Tensor]]


def run_backward(
    w: FoldedWeights,
    f: StepConstants,
    tape: "Tape",
    forced: Tensor | None,
    truncate_every: int,
    gradients: tuple[Tensor, ...],
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of `projected` and of every weight, given those of inputs, features, extras, candidates and y."""
    slopes, flows = _slopes(f, tape), LayerGradients([], [], [], [])
    blocks = [(b.w_in.mT, b.w_out.mT) for b in w.blocks]
    maps = TransposedWeights(w.w_y.mT, w.w_h.mT, w.w_stream.mT, w.w_head.mT, blocks)
    d_inputs, d_features, d_extras, d_candidates, d_y = (g.unbind(2) for g in gradients)
    d_x, d_h = torch.zeros_like(tape.taken[0]), torch.zeros_like(tape.before[0])
    for t in reversed(range(len(tape.made))):
        d_after = torch.addcmul(d_candidates[t], slopes.taken[t], (d_x + d_y[t]).unsqueeze(2))
        d_out, d_before = _candidates_back(f, slopes, t, d_after, d_extras[t])
        flows.out.append(d_out)
        d_u = _blocks_back(f, maps, tape.made[t], flows, torch.baddbmm(d_features[t], d_out, maps.head))
        d_h = torch.baddbmm(d_h, d_u, maps.stream)
        d_mixed = d_u.new_empty(*d_u.shape[:2], 4 * f.hidden + d_u.shape[-1])
        d_gates, d_stream = torch.split(d_mixed, [4 * f.hidden, d_u.shape[-1]], -1)
        torch.mul(d_h.unsqueeze(2), slopes.gates[t], out=d_gates.view(*d_u.shape[:2], 4, f.hidden))
        d_stream.copy_(d_u)
        flows.mixed.append(d_mixed)
        d_h = torch.baddbmm(d_h * slopes.keep[t], d_mixed[..., : 3 * f.hidden], maps.h)
        d_x = torch.baddbmm(d_before, d_mixed[..., f.hidden :], maps.y).add_(d_inputs[t])
        if forced is not None and t:
            d_x = d_x.masked_fill_(forced[:, :, t, None], 0.0)
        if truncate_every and t and t % truncate_every == 0:
            d_x, d_h = torch.zeros_like(d_x), torch.zeros_like(d_h)
    return _weight_gradients(f, tape, flows)


def _slopes(f: StepConstants, tape: "Tape") -> LocalJacobians:
    made = tape.made
    reset, update = torch.stack([m.gates for m in made]).chunk(2, -1)
    new, recurrent = (torch.stack(x) for x in ([m.new for m in made], [m.recurrent for m in made]))
    rest = 1 - update
    of_new = 0.5 * rest * (1 - new.square())
    through = of_new * reset
    of_reset = of_new * recurrent * reset * (1 - reset)
    gates = [through, of_reset, (torch.stack(tape.before) - new) * update * rest, of_new]
    candidates, outputs = torch.stack([m.candidates for m in made]), torch.stack([m.outputs for m in made])
    free = f.continuous.expand_as(candidates)
    if f.bounds is not None:
        free = (candidates == torch.stack([m.unbounded for m in made])) * free
    steps = free
    if f.clamp is not None:
        step = outputs[..., : f.modes * free.shape[-1]].reshape(free.shape)
        steps = free * (step.abs() <= f.clamp)
    taken = free.new_ones(len(made), 1)
    if tape.chosen:
        taken = one_hot(torch.stack(tape.chosen), f.modes).to(free).unsqueeze(-1)
    odds = outputs.new_empty(len(made), 0)
    if len(f.event_dims):
        odds = (outputs[..., f.logits] + f.impossible).reshape(*outputs.shape[:3], f.modes, *f.levels.shape).softmax(-1)
    return LocalJacobians(*(x.unbind() for x in (torch.stack(gates, -2), update, free, steps, taken, odds)))


def _candidates_back(
    f: StepConstants, slopes: LocalJacobians, t: int, d_after: Tensor, d_extras: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the head's outputs and of the latent before step t from that of its candidates (K, B, M, D)."""
    d_free = d_after * slopes.free[t]
    d_steps = d_free if f.clamp is None else d_after * slopes.steps[t]
    out = torch.cat([d_steps.flatten(-2), d_extras], -1)
    if len(f.event_dims):
        odds = slopes.odds[t]
        d_level = d_after.index_select(-1, f.event_dims).unsqueeze(-1) * f.levels
        d_level = odds * (d_level - (odds * d_level).sum(-1, keepdim=True))
        out[..., f.logits] += d_level.flatten(-3)
    return out, d_free.sum(2)


def _blocks_back(
    f: StepConstants, maps: TransposedWeights, made: StepActivations, flows: LayerGradients, d_u: Tensor
) -> Tensor:
    """Gradient of the stream before the blocks from that of the features."""
    if not maps.blocks:
        return torch.ops.aten.silu_backward(d_u, made.streams[0])
    pre, stream = [], []
    for i in reversed(range(len(maps.blocks))):
        w_in, w_out = maps.blocks[i]
        stream.append(d_u)
        pre.append(torch.ops.aten.silu_backward(torch.bmm(d_u, w_out), made.pre[i]))
        d_normed = torch.bmm(pre[-1], w_in)
        if f.normalised:
            d_normed = torch.ops.aten.native_layer_norm_backward(
                d_normed, made.streams[i], d_normed.shape[-1:], *made.moments[i], None, None, [True, False, False]
            )[0]
        d_u = d_u + d_normed
    flows.pre.append(pre[::-1])
    flows.stream.append(stream[::-1])
    return d_u


def _weight_gradients(f: StepConstants, tape: "Tape", flows: LayerGradients) -> tuple[Tensor, list[Tensor]]:
    """The gradient of `projected` and those of `FoldedWeights.of_step`: one product over all steps and rows a map."""

    def forth(column: list[Tensor]) -> Tensor:
        return torch.stack(column, 1).flatten(1, 2)

    def back(column: list[Tensor]) -> Tensor:
        return forth(column[::-1])

    def of_map(x: Tensor, gradient: Tensor) -> list[Tensor]:
        return [torch.bmm(x.mT, gradient), gradient.sum(1, keepdim=True)]

    made, mixed = tape.made, back(flows.mixed)
    recurrent, projected, stream = mixed[..., : 3 * f.hidden], mixed[..., f.hidden :], mixed[..., 4 * f.hidden :]
    found = [
        torch.bmm(forth(tape.inputs).mT, projected),
        *of_map(forth(tape.before), recurrent),
        *of_map(forth([m.hidden for m in made]), stream),
        *of_map(forth([m.features for m in made]), back(flows.out)),
    ]
    for i in range(len(made[0].pre)):
        pre, after = back([p[i] for p in flows.pre]), back([s[i] for s in flows.stream])
        found += of_map(forth([m.normed[i] for m in made]), pre) + of_map(forth([m.active[i] for m in made]), after)
    return projected.view(len(projected), len(made), -1, projected.shape[-1]), found
