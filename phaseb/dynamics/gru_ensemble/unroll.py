"""Running the dynamics along sequences: teacher-forced windows and free-running rollouts.

Legend: K members, B rows, T steps, D latent, A action, M modes.
"""

import torch
from torch import Tensor

from phaseb.dynamics.gru_ensemble.fused_rollout import fused_free_run
from phaseb.dynamics.gru_ensemble.network import LatentDynamics, Unrolled, gather_mode
from phaseb.nn.precision import bf16_enabled


def teacher_forced(model: LatentDynamics, y: Tensor, actions: Tensor, target: Tensor | None = None) -> Unrolled:
    """One-step predictions along real inputs y (K, B, T, D), actions (K, B, T, A): only the GRU is sequential.

    Args:
        model: the dynamics.
        y: inner coordinates before each step.
        actions: what was done.
        target: (K, B, T, D) what followed; the alternative nearest to it is taken, else the likeliest.
    """
    k, b, t, d = y.shape
    flat = y.reshape(k, b * t, d)
    projected = model.project_actions(actions) + model.from_y(flat).view(k, b, t, -1)
    to_gru, to_stream = torch.split(projected, model.input_sizes, dim=-1)
    h, hidden = model.initial_hidden(b), []
    for inputs in to_gru.unbind(2):
        h = model.recur(inputs, h)
        hidden.append(h)
    features = model.features(torch.stack(hidden, dim=2).reshape(k, b * t, -1), to_stream.reshape(k, b * t, -1))
    after, extras = model.alternatives(flat, features)
    chosen = select_mode(model, after, extras, None if target is None else target.reshape(k, b * t, d))
    shape = (k, b, t, -1)
    return Unrolled(
        gather_mode(after, chosen).view(k, b, t, d),
        y,
        features.view(shape),
        extras.reshape(k, b, t, extras.shape[-1]),
        after.view(k, b, t, *after.shape[-2:]),
    )


def open_loop(
    model: LatentDynamics,
    y: Tensor,
    actions: Tensor,
    target: Tensor | None = None,
    forced: Tensor | None = None,
    truncate_every: int = 0,
) -> Unrolled:
    """`open_loop_autograd`, as one fused operation where no gradient goes to the real latents.

    The fused operation multiplies in float32 alone.
    """
    of_data = y.requires_grad or (target is not None and target.requires_grad)
    if of_data or bf16_enabled():
        return open_loop_autograd(model, y, actions, target, forced, truncate_every)
    return fused_free_run(model, y, actions, target, forced, truncate_every)


def open_loop_autograd(
    model: LatentDynamics,
    y: Tensor,
    actions: Tensor,
    target: Tensor | None = None,
    forced: Tensor | None = None,
    truncate_every: int = 0,
) -> Unrolled:
    """Predictions from y[:, :, 0] on the model's own latents, put back on the real ones where `forced`.

    Args:
        model: the dynamics.
        y: (K, B, T, D) real latents, of which only the first is read where `forced` is None.
        actions: (K, B, T, A).
        target: (K, B, T, D) what really followed each step: which of the alternatives happened is then known, and
            the rollout is asked for the rest; the likeliest is taken where None.
        forced: (K, B, T) bool, true where step t starts from the real latent (scheduled sampling, Bengio 2015).
        truncate_every: cut the gradient through time every so many steps; 0 never does.
    """
    current, h = y[:, :, 0], model.initial_hidden(y.shape[1])
    states, inputs, features, extras, candidates = [], [], [], [], []
    for t, projected in enumerate(model.project_actions(actions).unbind(2)):
        if truncate_every and t and t % truncate_every == 0:
            current, h = current.detach(), h.detach()
        if forced is not None and t:
            current = torch.where(forced[:, :, t, None], y[:, :, t], current)
        inputs.append(current)
        after, h, u, extra = model.step(current, projected, h)
        current = gather_mode(after, select_mode(model, after, extra, None if target is None else target[:, :, t]))
        states.append(current)
        features.append(u)
        extras.append(extra)
        candidates.append(after)
    return Unrolled(*(torch.stack(x, dim=2) for x in (states, inputs, features, extras, candidates)))


@torch.no_grad()
def select_mode(model: LatentDynamics, after: Tensor, extras: Tensor, target: Tensor | None) -> Tensor:
    """(K, B) which alternative of (K, B, M, D) is taken: the nearest to a target (K, B, D), else the likeliest."""
    if model.num_modes == 1:
        return torch.zeros(after.shape[:2], dtype=torch.int64, device=after.device)
    if target is None:
        return model.mode_logits(extras).argmax(-1)
    return ((after - target[:, :, None]) / model.spread).abs().mean(-1).argmin(-1)
