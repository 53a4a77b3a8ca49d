"""L = L_recon + λ_trust·L_trust + λ_feat·L_feat + λ_var·L_var, every part a plain function of tensors.

Legend: K members, B rows, T steps, D latent, F discriminator features, E event dimensions, L levels.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.gru_ensemble.network import LatentDynamics, Unrolled

MODE_TEMPERATURE = 0.02
"""Difference of errors at which alternatives are told apart."""
EVENT_WEIGHT = 0.15
"""Of the cross-entropy of what jumps, beside the error of the other dimensions."""
SMOOTH_L1_BETA = 0.1
"""Error in σ below which smooth-L1 is quadratic."""
LAGS = (1, 2, 5, 10)
"""Lags of L_var, in steps."""
RECON_WEIGHTS = {"reward": 0.2, "terminal": 0.1, "noise": 0.1}
"""Weights in L_recon of the heads: standardised reward, end of the episode, heteroscedastic noise."""


class DiscriminatorTerm(Protocol):
    """A trust network that takes part in training. It never gates or judges."""

    def module(self) -> nn.Module:
        """What to save and to move between devices."""

    def loss(self, z_syn: Tensor) -> Tensor:
        """L_trust of rollouts (B, T, D): low where the discriminator takes them for real; differentiable in z_syn."""

    def features(self, z: Tensor) -> Tensor:
        """The discriminator's features (B, F) of latents (B, T, D), for L_feat."""

    def update(self, z_real: Tensor, z_syn: Tensor) -> dict[str, float]:
        """Train the discriminator on one batch of each; metrics by name."""


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Σ weight · loss over losses whose names are exactly the weights' names."""
    assert losses.keys() == weights.keys(), f"losses {sorted(losses)} are not the configured {sorted(weights)}"
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values (K, B, T) over the steps in mask (K, B, T)."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def latent_error(model: LatentDynamics, run: Unrolled, target: Tensor, mask: Tensor, config: GRUConfig) -> Tensor:
    """Mean error of a step over the steps in mask (K, B, T).

    The error of an alternative is that of the continuous inner dimensions of target (K, B, T, D), and `event_weight`
    times the cross-entropy of the levels that the event dimensions take: what happens or not happens in all of them.
    With M alternatives of errors e_m and weights π_m it is −τ log Σ π_m exp(−e_m / τ), the likelihood of a mixture
    with a fixed temperature (Bishop 1994): each learns where it is the nearest, and the weights learn how often.
    """
    off = (run.candidates - target[..., None, :]) / model.spread
    if config.loss == "mse":
        error = off.square()
    else:
        error = smooth_l1_loss(off, torch.zeros_like(off), beta=SMOOTH_L1_BETA, reduction="none")
    dims = model.continuous
    each = (error * dims).sum(-1) / dims.sum().clamp(min=1)
    if model.num_events:
        each = each + EVENT_WEIGHT * level_error(model, run.extras, target)
    if model.num_modes == 1:
        return masked_mean(each.squeeze(-1), mask)
    scaled = model.mode_logits(run.extras) - each / MODE_TEMPERATURE
    return masked_mean(-MODE_TEMPERATURE * scaled.logsumexp(-1), mask)


def level_error(model: LatentDynamics, extras: Tensor, target: Tensor) -> Tensor:
    """(K, B, T, M) cross-entropy of each alternative's levels, given those that target (K, B, T, D) takes."""
    values = target[..., model.event_dims]
    wanted = (values[..., None] - model.levels.nan_to_num(nan=1e9)).abs().argmin(-1)
    log_p = model.event_logits(extras).log_softmax(-1)
    index = wanted[..., None, :, None].expand(*log_p.shape[:-1], 1)
    return -log_p.gather(-1, index).squeeze(-1).mean(-1)


def noise_error(model: LatentDynamics, run: Unrolled, target: Tensor, mask: Tensor) -> Tensor:
    """Gaussian negative log-likelihood of the residual around the (detached) mean: trains the spread alone."""
    if not model.extra_sizes[0]:
        return target.new_zeros(())
    log_std = model.log_noise(run.extras)
    residual = (target - run.y.detach()) * torch.exp(-log_std)
    return masked_mean((0.5 * residual.square() + log_std).mean(-1), mask)


def outcome_errors(
    model: LatentDynamics, run: Unrolled, rewards: Tensor, terminals: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Errors of the reward head (standardised, smooth-L1) and of the end-of-episode head (cross-entropy)."""
    reward, logit = model.outcome(run.features, run.inputs, run.y)
    wanted = (rewards - model.reward_mean) / model.reward_scale
    reward_error = masked_mean(smooth_l1_loss(reward, wanted, reduction="none"), mask)
    return reward_error, masked_mean(binary_cross_entropy_with_logits(logit, terminals, reduction="none"), mask)


def variance_error(z_real: Tensor, z_syn: Tensor) -> Tensor:
    """L_var of rollouts z_syn (K, B, T, D) against real z_real of the same shape.

    It compares Var(z_{t+k} − z_t) at every lag k: the squared log ratio. Total variance is blind to the lags.
    """
    terms = []
    for lag in LAGS:
        if lag < z_syn.shape[2]:
            real, syn = ((z[:, :, lag:] - z[:, :, :-lag]).var(dim=(1, 2)) + 1e-4 for z in (z_real, z_syn))
            terms.append((syn / real).log().square().mean())
    return torch.stack(terms).mean() if terms else z_syn.new_zeros(())


def feature_error(discriminator: DiscriminatorTerm, z_real: Tensor, z_syn: Tensor) -> Tensor:
    """L_feat = ‖mean F(z_real) − mean F(z_syn)‖² (feature matching, Salimans et al. 2016), z (B, T, D)."""
    with torch.no_grad():
        real = discriminator.features(z_real).mean(dim=0)
    return (discriminator.features(z_syn).mean(dim=0) - real).square().sum()
