"""Temporal InfoNCE (van den Oord et al. 2018) with Euclidean similarity (Zimmermann et al. 2021).

An observation's latent, moved by a predictor, must be nearer to the latent k steps later than to those of other
times and other episodes. Short horizons ask for the fast state, long ones for what stays constant in an episode;
negatives of the same episode ask for what moves, negatives of other episodes for what tells episodes apart.

Legend: G groups, B segments a group, L observations a segment, P = B * L, D latent dimensions, A action dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

FIRST_LOG_PRECISION = 2.0


class Predictor(nn.Module):
    """One linear map a horizon that moves z_t towards z_{t+k}, given the action at t, and how exactly it must hit.

    Linear on purpose: a network here would let the latents be any scrambling of the state; a linear map asks for
    latents in which motion is as simple as it can be.
    """

    def __init__(self, num_dims: int, num_actions: int, num_horizons: int) -> None:
        super().__init__()
        self.move = nn.ModuleList([nn.Linear(num_dims + num_actions, num_dims) for _ in range(num_horizons)])
        self.log_precision = nn.Parameter(torch.full((num_horizons,), FIRST_LOG_PRECISION))

    def forward(self, z: Tensor, actions: Tensor, horizon: int) -> Tensor:
        return cast(Tensor, z + self.move[horizon](torch.cat([z, actions], dim=-1)))

    def precision(self, horizon: int) -> Tensor:
        """The inverse variance of a latent around its prediction."""
        return self.log_precision[horizon].exp()


@dataclass(frozen=True)
class Segments:
    """Who is whose positive, and who must not be a negative.

    Attributes:
        episode: (G, B, L) episode number of each observation.
        step: (G, B, L) its step in the episode.
        valid: (G, B, L) false in padding.
    """

    episode: Tensor
    step: Tensor
    valid: Tensor


def contrast(
    z: Tensor, actions: Tensor, segments: Segments, predictor: Predictor, horizons: Sequence[int]
) -> tuple[dict[str, Tensor], Tensor]:
    """The encoder's loss terms and the share of anchors that find their positive among all of the group.

    Args:
        z: (G, B, L, D) raw latents.
        actions: (G, B, L, A) scaled actions at the same steps, zeros where unknown.
    """
    G, B, L, D = z.shape
    candidates = z.reshape(G, B * L, D)
    episode, step, valid = (x.reshape(G, B * L) for x in (segments.episode, segments.step, segments.valid))
    same_episode = episode[:, :, None] == episode[:, None, :]
    totals = {"contrast": z.new_zeros(()), "contrast_within": z.new_zeros(())}
    hits = []
    for number, k in enumerate(h for h in horizons if h < L):
        anchor = torch.arange(B * L, device=z.device).view(B, L)[:, : L - k].reshape(-1)
        moved = predictor(candidates[:, anchor], actions.reshape(G, B * L, -1)[:, anchor], number)
        logits = -0.5 * predictor.precision(number) * squared_distances(moved, candidates)
        # the same observation may be in a group twice (few episodes): it is no negative of itself
        twin = same_episode[:, anchor + k] & (step[:, anchor + k, None] == step[:, None, :])
        positive = (anchor + k).expand(G, -1)
        allowed = valid[:, None, :] & ~twin
        allowed.scatter_(2, positive[..., None], True)
        counted = (valid[:, anchor] & valid[:, anchor + k]).float()
        totals["contrast"] = totals["contrast"] + _cross_entropy(logits, positive, allowed, counted)
        totals["contrast_within"] = totals["contrast_within"] + _cross_entropy(
            logits, positive, allowed & same_episode[:, anchor], counted
        )
        best = logits.masked_fill(~allowed, -torch.inf).argmax(-1)
        hits.append(((best == positive).float() * counted).sum() / counted.sum().clamp_min(1.0))
    losses = {name: total / max(len(hits), 1) for name, total in totals.items()}
    losses["spread"] = decorrelation(candidates, valid)
    return losses, torch.stack(hits).mean() if hits else z.new_zeros(())


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(G, M, P) squared Euclidean distances of (G, M, D) and (G, P, D); unlike `cdist`, smooth at zero."""
    squares = x.square().sum(-1)[:, :, None] + y.square().sum(-1)[:, None, :]
    return (squares - 2 * x @ y.transpose(1, 2)).clamp_min(0.0)


def decorrelation(z: Tensor, valid: Tensor) -> Tensor:
    """Mean squared correlation between different latent dimensions (G, P, D): 0 where none repeats another.

    The covariance term of VICReg (Bardes et al. 2022), on correlations, so that it does not shrink the latents.
    """
    weight = valid.float()[..., None]
    count = weight.sum(1, keepdim=True).clamp_min(1.0)
    centred = (z - (z * weight).sum(1, keepdim=True) / count) * weight
    scaled = centred / (centred.square().sum(1, keepdim=True) + 1e-6).sqrt()
    correlation = scaled.transpose(1, 2) @ scaled
    D = z.shape[-1]
    off_diagonal = correlation.square().sum((1, 2)) - correlation.diagonal(dim1=1, dim2=2).square().sum(1)
    return off_diagonal.mean() / max(D * (D - 1), 1)


def _cross_entropy(logits: Tensor, positive: Tensor, allowed: Tensor, counted: Tensor) -> Tensor:
    """InfoNCE over allowed candidates, averaged over counted anchors of each group, then over groups."""
    log_p = logits.masked_fill(~allowed, -torch.inf).log_softmax(-1).gather(2, positive[..., None]).squeeze(-1)
    return ((-log_p * counted).sum(1) / counted.sum(1).clamp_min(1.0)).mean()
