"""A free run of the dynamics as one operation: forward and backward written out, nothing recorded step by step.

At the sizes of this project a step is a dozen products of a few rows; what autograd adds to each of them (a node, a
gradient tensor, one product a step for every weight) costs as much as they do. Here the gradient goes back through time
by hand, and each weight's gradient is one product over all steps. Same numbers as the recorded `unroll.open_loop`, to
rounding.
Legend: K members, B rows, T steps, D latent, M modes.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from phaseb.dynamics.gru_ensemble.fused_backward import run_backward
from phaseb.dynamics.gru_ensemble.fused_step import (
    FoldedWeights,
    StepActivations,
    StepConstants,
    fold_weights,
    fused_step,
    nearest,
    step_constants,
)
from phaseb.dynamics.gru_ensemble.network import LatentDynamics, Unrolled, gather_mode


class Tape(NamedTuple):
    """A free run's steps: what they started from, made and took."""

    inputs: list[Tensor]
    before: list[Tensor]  # hidden state
    made: list[StepActivations]
    chosen: list[Tensor]  # (K, B); empty where there is one alternative
    taken: list[Tensor]


def fused_free_run(
    model: LatentDynamics,
    y: Tensor,
    actions: Tensor,
    target: Tensor | None = None,
    forced: Tensor | None = None,
    truncate_every: int = 0,
) -> Unrolled:
    """`unroll.open_loop` as one operation; y, actions and target are data, to which no gradient goes."""
    k, b, t, a = actions.shape
    w = fold_weights(model)
    projected = torch.baddbmm(w.b_a, actions.transpose(1, 2).reshape(k, t * b, a), w.w_a).view(k, t, b, -1)
    made = FreeRun.apply(step_constants(model), y, target, forced, truncate_every, projected, *w.of_step())  # type: ignore[no-untyped-call]
    inputs, features, extras, candidates, taken = made
    return Unrolled(taken, inputs, features, extras, candidates)


def run_forward(
    w: FoldedWeights, f: StepConstants, y: Tensor, projected: Tensor, target: Tensor | None, forced: Tensor | None
) -> Tape:
    """T steps from y[:, :, 0]; projected (K, T, B, ·) is the actions' part of the input."""
    tape = Tape([], [], [], [], [])
    real, wanted = y.unbind(2), target.unbind(2) if target is not None else ()
    x, h = real[0], projected.new_zeros(*projected.shape[::2], f.hidden)
    for t, given in enumerate(projected.unbind(1)):
        if forced is not None and t:
            x = torch.where(forced[:, :, t, None], real[t], x)
        made = fused_step(w, f, x, h, given)
        tape.inputs.append(x)
        tape.before.append(h)
        tape.made.append(made)
        x, h = made.candidates[:, :, 0], made.hidden
        if f.modes > 1:
            chosen = nearest(f, made.candidates, wanted[t]) if wanted else made.outputs[..., -f.modes :].argmax(-1)
            x = gather_mode(made.candidates, chosen)
            tape.chosen.append(chosen)
        tape.taken.append(x)
    return tape


class FreeRun(torch.autograd.Function):
    """(facts, y, target, forced, truncate_every, projected, *weights) -> inputs, features, extras, candidates, y."""

    @staticmethod
    def forward(
        ctx: Any,
        f: StepConstants,
        y: Tensor,
        target: Tensor | None,
        forced: Tensor | None,
        truncate_every: int,
        projected: Tensor,
        *flat: Tensor,
    ) -> tuple[Tensor, ...]:
        tape = run_forward(FoldedWeights.packed(flat), f, y, projected, target, forced)
        ctx.tape, ctx.facts, ctx.forced, ctx.truncate_every = tape, f, forced, truncate_every
        ctx.save_for_backward(*flat)
        made, steps = tape.made, f.modes * y.shape[-1]
        columns = (
            tape.inputs,
            [m.features for m in made],
            [m.outputs[..., steps:] for m in made],
            [m.candidates for m in made],
            tape.taken,
        )
        return tuple(torch.stack(column, 2) for column in columns)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        w = FoldedWeights.packed(ctx.saved_tensors)
        projected, flat = run_backward(w, ctx.facts, ctx.tape, ctx.forced, ctx.truncate_every, gradients)
        return None, None, None, None, None, projected, *flat
