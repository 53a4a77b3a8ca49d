"""Latent actions for new data: codes of training episodes that were at a near latent, a stretch of one at a time.

A Gaussian p(u | z) that is drawn afresh at every step knows of no plan: what a robot does next depends on more than
where it is, and what it does in one step fits what it does in the next. So a rollout follows the codes of a training
episode that was near, for a few steps, and goes on with those of another one that is near by then (analogues, Lorenz
1969; resampled nearest neighbours, Lall & Sharma 1996). Codes are what is copied, never latents: where they lead is
the world model's to say, from where the rollout is.

Legend: M transitions known, N rollouts, D latent dimensions, U code dimensions, K neighbours.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

HISTORY = 0.5  # weight of how far apart the latents one step earlier are, as a factor on the distance
AGE = 0.3  # σ of latents that one step more or less since the start counts for
MOST = 2**14  # transitions kept; more make the search slow and add little


class LatentActionBank(nn.Module):
    """What was done at which latent, in the training episodes.

    Args:
        latent_dims: D.
        num_dims: U.
        size: M.
    """

    z: Tensor
    before: Tensor
    age: Tensor
    last: Tensor
    codes: Tensor

    def __init__(self, latent_dims: int, num_dims: int, size: int) -> None:
        super().__init__()
        self.register_buffer("z", torch.zeros(size, latent_dims))
        self.register_buffer("before", torch.zeros(size, latent_dims))
        self.register_buffer("age", torch.zeros(size))
        self.register_buffer("last", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("codes", torch.zeros(size, num_dims))

    @classmethod
    def of(cls, z: Sequence[Tensor], codes: Sequence[Tensor]) -> "LatentActionBank":
        """From episodes (T+1, D) and their codes (T, U): the first of them, up to MOST transitions."""
        parts = []
        for latents, code in zip(z, codes, strict=True):
            now = latents[:-1]
            age = torch.arange(len(now), device=now.device)
            parts.append((now, torch.cat([now[:1], now[:-1]]), age.to(now), age == len(now) - 1, code))
        names = ("z", "before", "age", "last", "codes")
        joined = {name: torch.cat(part)[:MOST] for name, part in zip(names, zip(*parts, strict=True), strict=True)}
        joined["last"][-1:] = True
        bank = cls(z[0].shape[1], codes[0].shape[1], len(joined["z"])).to(z[0].device)
        bank.load_state_dict(joined)
        return bank

    def near(self, z: Tensor, before: Tensor, age: int, num: int) -> Tensor:
        """(N, K) the transitions nearest to latents z and those a step earlier (N, D), `age` steps after the start."""
        known = torch.cat([self.z, HISTORY * self.before, AGE * self.age[:, None]], 1)
        wanted = torch.cat([z, HISTORY * before, z.new_full((len(z), 1), AGE * age)], 1)
        return torch.cdist(wanted, known).topk(min(num, len(known)), largest=False).indices


class RetrievalPolicy:
    """The codes of rollouts from their start on: called with latents (N, D) and the step, which counts from 0 up.

    Args:
        bank: what codes are taken from.
        neighbours: K; which of the K nearest transitions is followed is drawn evenly.
        steps: how many steps of one episode are followed, on average.
        generator: of the draws.
    """

    def __init__(self, bank: LatentActionBank, neighbours: int, steps: float, generator: torch.Generator) -> None:
        self.bank, self.neighbours, self.leave, self.generator = bank, neighbours, 1 / steps, generator
        self._rows = self._before = torch.empty(0)

    def __call__(self, z: Tensor, step: int) -> Tensor:
        """(N, U) the codes of this step."""
        leaves, drawn = (torch.rand(len(z), generator=self.generator).to(z.device) for _ in range(2))
        if step == 0:
            self._rows, self._before, jumps = torch.zeros(len(z), dtype=torch.int64, device=z.device), z, leaves >= 0
        else:
            jumps = (leaves < self.leave) | self.bank.last[self._rows]
            self._rows = (self._rows + 1).clamp(max=len(self.bank.z) - 1)
        if jumps.any():
            near = self.bank.near(z[jumps], self._before[jumps], step, self.neighbours)
            which = (drawn[jumps] * near.shape[1]).long().clamp(max=near.shape[1] - 1)
            self._rows[jumps] = near.gather(1, which[:, None])[:, 0]
        self._before = z.clone()
        return self.bank.codes[self._rows]
