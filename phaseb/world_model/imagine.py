"""Rollouts without gradients: steps over all rows, within a step so many at a time on a CPU that caches still help.

What comes out does not depend on how many. Fewer than a few hundred rows at a time were slower than all of them:
what calling an operation costs outweighs what a nearer cache saves.
Legend: K members, N rollouts, T steps, D latent, A action, M modes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from phaseb.captured import EAGER_STEPS, CapturedStep
from phaseb.world_model.dynamics import LatentDynamics, pick
from phaseb.world_model.folding import Facts, Weights, advance, facts, fold
from phaseb.world_model.foresight import can_see
from phaseb.world_model.landings import Landings

TILE_ROWS = 1024  # on CPUs; a GPU takes all rows at once


class Taken(NamedTuple):
    """One step of all members on some rows: latents in both coordinates (K, n, D), hidden state, outcome (K, n)."""

    y: Tensor
    z: Tensor
    hidden: Tensor
    reward: Tensor
    logit: Tensor


@dataclass(frozen=True)
class Noise:
    """The random numbers of one step: of the alternatives (K or 1, N), and added to latents (K, N, D).

    `scaled` says that `added` is in units of the learned spread.
    """

    uniform: Tensor | None = None
    added: Tensor | None = None
    scaled: bool = False

    def of(self, table: Tensor) -> "Noise":
        """That of the rows in a table (K, ·), a member's own in each line."""
        uniform, added = self.uniform, self.added
        if uniform is not None:
            uniform = uniform.expand(len(table), -1).gather(1, table)
        if added is not None:
            added = added.gather(1, table[..., None].expand(*table.shape, added.shape[-1]))
        return Noise(uniform, added, self.scaled)


class Imagination:
    """A model's weights as they are now, made ready for many steps of the same rows."""

    def __init__(self, model: LatentDynamics, landings: Landings | None = None, graphs: bool = True) -> None:
        self.model, self.landings = model, landings
        self.weights: Weights = fold(model)
        self.facts: Facts = facts(model)
        self._graphs, self._steps = graphs, 0
        self._captured: CapturedStep[Taken] | None = None

    def step(self, y: Tensor, hidden: Tensor, seen: Tensor, noise: Noise) -> Iterator[tuple[slice, Taken]]:
        """One step of latents y (K, N, D) under what is seen of actions (K, N, ·), a tile of rows at a time.

        What is yielded is to be read before the next step.
        """
        if y.device.type == "cuda":
            yield slice(0, y.shape[1]), self._on_gpu(y, hidden, seen, noise)
            return
        for first in range(0, y.shape[1], TILE_ROWS):
            rows = slice(first, min(first + TILE_ROWS, y.shape[1]))
            yield rows, self._tile(y[:, rows], hidden[:, rows], seen[:, rows], _of_rows(noise, rows))

    def _on_gpu(self, y: Tensor, hidden: Tensor, seen: Tensor, noise: Noise) -> Taken:
        self._steps += 1
        if not self._graphs or self._steps <= EAGER_STEPS:
            return self._tile(y, hidden, seen, noise)
        tensors = (y, hidden, seen, noise.uniform, noise.added)
        if self._captured is None:
            self._captured = CapturedStep(
                lambda y, hidden, seen, uniform, added: self._tile(
                    y, hidden, seen, Noise(uniform, added, noise.scaled)
                ),
                tensors,
            )  # fmt: skip
        return self._captured(*tensors)

    def _tile(self, y: Tensor, hidden: Tensor, seen: Tensor, noise: Noise) -> Taken:
        w, model = self.weights, self.model
        projected = torch.baddbmm(w.b_a, seen, w.w_a)
        made = advance(w, self.facts, y, hidden, projected)
        extras = made.outputs[..., self.facts.modes * y.shape[-1] :]
        after = pick(made.candidates, self._chosen(extras, noise, seen))
        if self.landings is not None:
            after = self.landings.refine(y, seen[..., : model.action_size], after)
            after = torch.clamp(after, model.low, model.high) if model.bounded else after
        if noise.added is not None:
            after = after + self._texture(noise, noise.added, extras)
        reward, logit = model.outcome(made.features[:, :, None], y[:, :, None], after[:, :, None])
        return Taken(after, model.outer(after), made.hidden, reward[..., 0], logit[..., 0])

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
        sighted = can_see(seen, model.action_size, model.num_ahead)
        floor = torch.where(sighted, model.sighted_floor, model.mode_floor)[..., None]
        weights = weights * ((weights >= floor) | (weights >= weights.amax(-1, keepdim=True)))
        share = weights.cumsum(-1) / weights.sum(-1, keepdim=True)
        return (share[..., :-1] < noise.uniform[..., None]).sum(-1)

    def _texture(self, noise: Noise, added: Tensor, extras: Tensor) -> Tensor:
        if noise.scaled:
            added = added * self.model.log_noise(extras).exp()
        return added * self.model.continuous * self.model.moving


def _of_rows(noise: Noise, rows: slice) -> Noise:
    uniform = None if noise.uniform is None else noise.uniform[:, rows]
    return Noise(uniform, None if noise.added is None else noise.added[:, rows], noise.scaled)


def rows_of_members(chosen: Tensor, num_members: int) -> Tensor:
    """(K, ·) the rows whose member (N,) each is; shorter lines repeat rows, which are then made twice alike."""
    each = [torch.nonzero(chosen == k)[:, 0] for k in range(num_members)]
    width = max(len(rows) for rows in each)
    return torch.stack([rows.repeat(-(-width // len(rows)))[:width] for rows in each])
