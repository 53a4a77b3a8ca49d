"""Residual GRU dynamics of K members at once (no loop over members: every layer is one batched GEMM).

    h' = GRU([y, a], h),  u = blocks(W_h h' + W_y y + W_a a),  y' = y + clamp(scale · W_m u)  with m ~ softmax(W_π u)

y are inner coordinates of the latent (see `structure`), a is the action and what is known ahead (see `foresight`). A
step has M alternatives, of which one is taken: where a grip may catch or miss, their mean is a state that never occurs.
Legend: K members, B rows, T steps, D latent, A action, H hidden, U stream, M modes, E event dimensions, L levels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, silu

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.gru_ensemble.action_lookahead import lookahead_size
from phaseb.dynamics.gru_ensemble.layers import MemberBlock, MemberLinear
from phaseb.dynamics.structure import LatentStructure, empty_structure
from phaseb.nn.precision import batched_linear

MODE_FLOOR = 0.1
"""Alternatives less likely than this are never drawn."""
SIGHTED_FLOOR = 0.35
"""The floor where actions are read ahead: they tell what happened, and doubts are mostly mistakes."""


@dataclass(frozen=True)
class Unrolled:
    """Predictions along a sequence.

    Attributes:
        y: (K, B, T, D) the latent after each step, of the alternative taken.
        inputs: (K, B, T, D) the latent before it.
        features: (K, B, T, U) what the heads read.
        extras: (K, B, T, ·) further outputs of the head.
        candidates: (K, B, T, M, D) all alternatives.
    """

    y: Tensor
    inputs: Tensor
    features: Tensor
    extras: Tensor
    candidates: Tensor


class LatentDynamics(nn.Module):
    """K recurrent models of y_{t+1} given y_{≤t}, a_{≤t}; reward and end-of-episode heads read the same features."""

    mean: Tensor
    whiten: Tensor
    unwhiten: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor
    step_scale: Tensor
    step_bound: Tensor
    varying: Tensor
    continuous: Tensor
    event_dims: Tensor
    levels: Tensor
    reward_mean: Tensor
    reward_scale: Tensor

    def __init__(
        self, config: GRUConfig, latent_size: int, action_size: int, structure: LatentStructure, seed: int
    ) -> None:
        super().__init__()
        k, h, u = config.num_members, config.hidden_size, config.head_size
        self.num_members, self.latent_size, self.action_size, self.hidden_size = k, latent_size, action_size, h
        self.num_modes, self.input_sizes = config.num_modes, [3 * h, u]
        self.clamped, self.bounded = config.clamp_quantile > 0, config.bound_latents
        self.mode_floor, self.mode_floor_with_lookahead = MODE_FLOOR, SIGHTED_FLOOR
        self.num_events, self.num_levels = len(structure.event_dims), structure.levels.shape[1]
        self.extra_sizes = [
            latent_size if config.noise == "heteroscedastic" else 0,
            self.num_modes * self.num_events * self.num_levels,
            self.num_modes if self.num_modes > 1 else 0,
        ]
        # Gates and stream share one GEMM for y and one for a; the latter is made for all steps at once.
        self.from_y = MemberLinear(k, latent_size, 3 * h + u, seed, "from_y", bias=False)
        self.num_ahead = config.action_lookahead
        self.from_a = MemberLinear(k, lookahead_size(action_size, self.num_ahead), 3 * h + u, seed, "from_a")
        self.from_h = MemberLinear(k, h, 3 * h, seed, "from_h")
        self.to_stream = MemberLinear(k, h, u, seed, "to_stream")
        self.blocks = nn.ModuleList(
            [MemberBlock(k, u, config.layer_norm, seed, f"block_{i}") for i in range(config.num_blocks)]
        )
        outputs = self.num_modes * latent_size + sum(self.extra_sizes)
        self.head = MemberLinear(k, u, outputs, seed, "head", scale=0.1)
        self.outcome_in = MemberLinear(k, u + 2 * latent_size, u, seed, "outcome_in")
        self.outcome_out = MemberLinear(k, u, 2, seed, "outcome_out")
        for name, value in vars(structure).items():
            self.register_buffer(name, torch.tensor(value))
        continuous = torch.ones(latent_size)
        continuous[self.event_dims] = 0.0
        self.register_buffer("continuous", continuous)

    @classmethod
    def like(cls, other: "LatentDynamics", config: GRUConfig) -> "LatentDynamics":
        """A model of the same shapes on the same device, its values still to be loaded."""
        structure = empty_structure(other.latent_size, other.num_events)
        return cls(config, other.latent_size, other.action_size, structure, 0).to(other.step_scale.device)

    def to_model_space(self, z: Tensor) -> Tensor:
        """Inner coordinates of latents (…, D)."""
        return (z - self.mean) @ self.whiten

    def from_model_space(self, y: Tensor) -> Tensor:
        """Latents of inner coordinates (…, D)."""
        return y @ self.unwhiten + self.mean

    def project_actions(self, actions: Tensor) -> Tensor:
        """The part of gates and stream of actions with what is known ahead: (K, B, T, ·) -> (K, B, T, 3H + U)."""
        k, b, t, a = actions.shape
        return self.from_a(actions.reshape(k, b * t, a)).view(k, b, t, -1)

    def initial_hidden(self, rows: int) -> Tensor:
        """(K, B, H) of zeros: nothing seen yet."""
        return self.from_h.weight.new_zeros(self.num_members, rows, self.hidden_size)

    def recur(self, inputs: Tensor, h: Tensor) -> Tensor:
        """One GRU step: projected inputs (K, B, 3H), hidden (K, B, H) -> hidden."""
        # split and unbind instead of slices: the gradient of a slice is a whole tensor of zeros.
        sizes = [2 * self.hidden_size, self.hidden_size]
        to_gates, to_new = torch.split(inputs, sizes, dim=-1)
        gates_h, new_h = torch.split(self.from_h(h), sizes, dim=-1)
        reset, update = torch.sigmoid(to_gates + gates_h).chunk(2, dim=-1)
        new = torch.sigmoid(2 * torch.addcmul(to_new, reset, new_h)) * 2 - 1  # tanh, faster on CPUs
        return torch.lerp(new, h, update)

    def features(self, h: Tensor, inputs: Tensor) -> Tensor:
        """The stream: hidden (K, B, H) and the projected inputs' last part (K, B, U) -> (K, B, U)."""
        u = self.to_stream(h) + inputs
        for block in self.blocks:
            u = block(u)
        return u if len(self.blocks) else silu(u)

    def alternatives(self, y: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """All M next latents (K, B, M, D) of y (K, B, D), and the extra outputs (K, B, ·)."""
        k, b, d = y.shape
        steps, extras = torch.split(self.head(features), [self.num_modes * d, sum(self.extra_sizes)], dim=-1)
        steps = steps.reshape(k, b, self.num_modes, d)
        steps = steps * self.step_scale
        if self.clamped:
            steps = torch.clamp(steps, -self.step_bound, self.step_bound)
        after = y[:, :, None] + steps * self.varying
        if self.bounded:
            after = torch.minimum(torch.maximum(after, self.low), self.high)
        if self.num_events:
            after = after.index_copy(-1, self.event_dims, self.jump(extras))
        return after, extras

    def mode_logits(self, extras: Tensor) -> Tensor:
        """(…, M) log-weights of the alternatives."""
        if self.num_modes == 1:
            return extras.new_zeros(*extras.shape[:-1], 1)
        return extras[..., -self.num_modes :].log_softmax(-1)

    def event_logits(self, extras: Tensor) -> Tensor:
        """(…, M, E, L) logits of each alternative's level after the step; padding levels are impossible."""
        first = self.extra_sizes[0]
        logits = extras[..., first : first + self.extra_sizes[1]]
        logits = logits.reshape(*logits.shape[:-1], self.num_modes, self.num_events, self.num_levels)
        return logits.masked_fill(self.levels.isnan(), -1e9)

    def jump(self, extras: Tensor) -> Tensor:
        """Each alternative's likeliest level of each event dimension, (…, M, E); the gradient is the softmax's."""
        soft = self.event_logits(extras).softmax(-1)
        hard = one_hot(soft.argmax(-1), self.num_levels).to(soft)
        return ((hard + soft - soft.detach()) * self.levels.nan_to_num()).sum(-1)

    def log_noise(self, extras: Tensor) -> Tensor:
        """(…, D) log σ of the next latent, within e^±6 of the scale of a step."""
        return 6 * torch.tanh(extras[..., : self.latent_size] / 6) + self.step_scale.log()

    def outcome(self, features: Tensor, y: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised reward and end-of-episode logit, each (K, B, T), of transitions (K, B, T, ·)."""
        x = torch.cat([features, y, after - y], dim=-1)
        k, b, t, width = x.shape
        out = self.outcome_out(silu(self.outcome_in(x.reshape(k, b * t, width)))).view(k, b, t, 2)
        reward, logit = out.unbind(-1)
        return reward, logit

    def step(self, y: Tensor, projected: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step of all members: alternatives (K, B, M, D), hidden, features, extra outputs."""
        mixed = batched_linear(projected, y, self.from_y.weight)
        to_gru, to_stream = torch.split(mixed, self.input_sizes, dim=-1)
        h = self.recur(to_gru, h)
        u = self.features(h, to_stream)
        after, extras = self.alternatives(y, u)
        return after, h, u, extras


def gather_mode(candidates: Tensor, chosen: Tensor) -> Tensor:
    """The chosen (…,) of the alternatives (…, M, D): (…, D)."""
    if candidates.shape[-2] == 1:
        return candidates.squeeze(-2)
    if candidates.shape[-2] == 2:  # many times cheaper than gathering, back as well
        first, second = candidates.unbind(-2)
        return torch.where(chosen[..., None] > 0, second, first)
    index = chosen[..., None, None].expand(*chosen.shape, 1, candidates.shape[-1])
    return candidates.gather(-2, index).squeeze(-2)
