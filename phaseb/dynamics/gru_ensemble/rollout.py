"""Rollouts without gradients: steps over all rows, within a step so many at a time on a CPU that caches still help.

What comes out does not depend on how many. Fewer than a few hundred rows at a time were slower than all of them:
what calling an operation costs outweighs what a nearer cache saves.
Legend: K members, N rollouts, T steps, D latent, A action, M modes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from phaseb.dynamics.gru_ensemble.action_lookahead import future_known
from phaseb.dynamics.gru_ensemble.fused_step import (
    FoldedWeights,
    StepConstants,
    fold_weights,
    fused_step,
    step_constants,
)
from phaseb.dynamics.gru_ensemble.gp_correction import GPCorrection
from phaseb.dynamics.gru_ensemble.network import LatentDynamics, gather_mode
from phaseb.nn.cuda_graphs import GraphedFunction

TILE_ROWS = 1024  # on CPUs; a GPU takes all rows at once


class StepOutput(NamedTuple):
    """One step of all members on some rows: latents in both coordinates (K, n, D), hidden state, outcome (K, n)."""

    y: Tensor
    z: Tensor
    hidden: Tensor
    reward: Tensor
    logit: Tensor


@dataclass(frozen=True)
class Noise:
    """The random numbers of one step: of the alternatives (K or 1, N), and added to latents (K, N, D): in units of the
    learned spread where the model has one."""

    uniform: Tensor | None = None
    added: Tensor | None = None

    def of(self, table: Tensor) -> "Noise":
        """That of the rows in a table (K, ·), a member's own in each line."""
        uniform, added = self.uniform, self.added
        if uniform is not None:
            uniform = uniform.expand(len(table), -1).gather(1, table)
        if added is not None:
            added = added.gather(1, table[..., None].expand(*table.shape, added.shape[-1]))
        return Noise(uniform, added)


class RolloutEngine:
    """A model's weights as they are now, made ready for many steps of the same rows."""

    def __init__(self, model: LatentDynamics, gp_correction: GPCorrection | None = None, graphs: bool = True) -> None:
        self.model, self.gp_correction = model, gp_correction
        self.weights: FoldedWeights = fold_weights(model)
        self.facts: StepConstants = step_constants(model)
        self._replayed = GraphedFunction(self._of_tensors, on=graphs and model.step_scale.device.type == "cuda")

    def step(self, y: Tensor, hidden: Tensor, seen: Tensor, noise: Noise) -> StepOutput:
        """One step of latents y (K, N, D) under what is seen of actions (K, N, ·); to be read before the next one."""
        if y.device.type == "cuda":
            return self._replayed(y, hidden, seen, noise.uniform, noise.added)
        starts = range(0, y.shape[1], TILE_ROWS)
        tiles = [
            self._tile(y[:, rows], hidden[:, rows], seen[:, rows], _of_rows(noise, rows))
            for rows in (slice(first, first + TILE_ROWS) for first in starts)
        ]
        return tiles[0] if len(tiles) == 1 else StepOutput(*(torch.cat(parts, 1) for parts in zip(*tiles, strict=True)))

    def _of_tensors(
        self, y: Tensor, hidden: Tensor, seen: Tensor, uniform: Tensor | None, added: Tensor | None
    ) -> StepOutput:
        return self._tile(y, hidden, seen, Noise(uniform, added))

    def _tile(self, y: Tensor, hidden: Tensor, seen: Tensor, noise: Noise) -> StepOutput:
        w, model = self.weights, self.model
        projected = torch.baddbmm(w.b_a, seen, w.w_a)
        made = fused_step(w, self.facts, y, hidden, projected)
        extras = made.outputs[..., self.facts.modes * y.shape[-1] :]
        after = gather_mode(made.candidates, self._chosen(extras, noise, seen))
        if self.gp_correction is not None:
            after = self.gp_correction.apply(y, seen[..., : model.action_size], after)
        if noise.added is not None:
            after = after + self._scaled_noise(noise.added, extras)
        if model.bounded and (self.gp_correction is not None or noise.added is not None):
            after = torch.clamp(after, model.low, model.high)
        reward, logit = model.outcome(made.features[:, :, None], y[:, :, None], after[:, :, None])
        return StepOutput(after, model.from_model_space(after), made.hidden, reward[..., 0], logit[..., 0])

    def _chosen(self, extras: Tensor, noise: Noise, seen: Tensor) -> Tensor:
        """(K, n) alternatives: drawn by their weights, those below the floor never; else the likeliest.

        The floor is another one where actions are read ahead.
        """
        model = self.model
        if model.num_modes == 1:
            return extras.new_zeros(extras.shape[:2], dtype=torch.int64)
        weights = model.mode_logits(extras)
        if noise.uniform is None:
            return weights.argmax(-1)
        weights = weights.exp()
        sighted = future_known(seen, model.action_size, model.num_ahead)
        floor = torch.where(sighted, model.mode_floor_with_lookahead, model.mode_floor)[..., None]
        weights = weights * ((weights >= floor) | (weights >= weights.amax(-1, keepdim=True)))
        share = weights.cumsum(-1) / weights.sum(-1, keepdim=True)
        return (share[..., :-1] < noise.uniform[..., None]).sum(-1)

    def _scaled_noise(self, added: Tensor, extras: Tensor) -> Tensor:
        if self.model.extra_sizes[0]:
            added = added * self.model.log_noise(extras).exp()
        return added * self.model.continuous * self.model.varying


class RolloutState:
    """A rollout of all members under way: where it is, and one step after the other from there."""

    def __init__(self, imagination: RolloutEngine, y: Tensor) -> None:
        self.imagination, self.y = imagination, y
        self.hidden = imagination.model.initial_hidden(y.shape[1])

    def step(self, seen: Tensor, noise: Noise) -> StepOutput:
        """What the next step makes, see `RolloutEngine.step`."""
        made = self.imagination.step(self.y, self.hidden, seen, noise)
        self.y, self.hidden = made.y, made.hidden
        return made


def _of_rows(noise: Noise, rows: slice) -> Noise:
    uniform = None if noise.uniform is None else noise.uniform[:, rows]
    return Noise(uniform, None if noise.added is None else noise.added[:, rows])


def rows_of_members(chosen: Tensor, num_members: int) -> Tensor:
    """(K, ·) the rows whose member (N,) each is; shorter lines repeat rows, which are then made twice alike."""
    each = [torch.nonzero(chosen == k)[:, 0] for k in range(num_members)]
    width = max(len(rows) for rows in each)
    return torch.stack([rows.repeat(-(-width // len(rows)))[:width] for rows in each])
