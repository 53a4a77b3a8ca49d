"""Residual GRU dynamics of K members at once (no loop over members: every layer is one batched GEMM).

    h' = GRU([z, a], h),  u = silu(LN(W_h h' + W_z z + W_a a)),  z' = z + clamp(scale · W_Δ u)

Legend: K members, B rows, T steps, D latent, A action, H hidden, U head, E event dimensions, L levels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, silu

from phaseb.config.world_model import WorldModelConfig
from phaseb.world_model.layers import MemberLinear, MemberNorm
from phaseb.world_model.structure import LatentStructure, empty_structure


@dataclass(frozen=True)
class Unrolled:
    """Predictions along a sequence, without the start: z (K, B, T, D), the inputs they came from, and head outputs."""

    z: Tensor
    inputs: Tensor
    features: Tensor
    extras: Tensor


class LatentDynamics(nn.Module):
    """K recurrent models of z_{t+1} given z_{≤t}, a_{≤t}; reward and end-of-episode heads read the same features."""

    step_scale: Tensor
    step_bound: Tensor
    moving: Tensor
    continuous: Tensor
    event_dims: Tensor
    levels: Tensor
    reward_mean: Tensor
    reward_scale: Tensor

    def __init__(
        self, config: WorldModelConfig, latent_size: int, action_size: int, structure: LatentStructure, seed: int
    ) -> None:
        super().__init__()
        k, h, u = config.num_members, config.hidden_size, config.head_size
        self.num_members, self.latent_size, self.action_size, self.hidden_size = k, latent_size, action_size, h
        self.input_sizes = [3 * h, u]
        self.residual, self.clamped = config.residual, config.clamp_quantile > 0
        self.noisy = config.noise == "heteroscedastic"
        self.num_events = len(structure.event_dims)
        self.num_levels = structure.levels.shape[1]
        extras = (latent_size if self.noisy else 0) + self.num_events * self.num_levels
        # The projections of z and a into gates and head share one GEMM each; those of a are made for all steps at once.
        self.from_z = MemberLinear(k, latent_size, 3 * h + u, seed, "from_z", bias=False)
        self.from_a = MemberLinear(k, action_size, 3 * h + u, seed, "from_a")
        self.from_h = MemberLinear(k, h, 3 * h, seed, "from_h")
        self.to_head = MemberLinear(k, h, u, seed, "to_head")
        self.norm = MemberNorm(k, u) if config.layer_norm else None
        self.to_step = MemberLinear(k, u, latent_size, seed, "to_step", scale=0.1 if config.residual else 1.0)
        self.to_extras = MemberLinear(k, u, extras, seed, "to_extras", scale=0.1) if extras else None
        self.to_outcome = nn.ModuleList([
            MemberLinear(k, u + 2 * latent_size, u, seed, "outcome_0"), MemberLinear(k, u, 2, seed, "outcome_1"),
        ])  # fmt: skip
        for name, value in vars(structure).items():
            self.register_buffer(name, torch.tensor(value))
        continuous = torch.ones(latent_size)
        continuous[self.event_dims] = 0.0
        self.register_buffer("continuous", continuous)

    @classmethod
    def like(cls, other: "LatentDynamics", config: WorldModelConfig) -> "LatentDynamics":
        """A model of the same shapes on the same device, its values still to be loaded."""
        structure = empty_structure(other.latent_size, other.num_events)
        return cls(config, other.latent_size, other.action_size, structure, 0).to(other.step_scale.device)

    def project_actions(self, actions: Tensor) -> Tensor:
        """The actions' part of gates and head for all steps: (K, B, T, A) -> (K, B, T, 3H + U)."""
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
        return torch.lerp(torch.tanh(torch.addcmul(to_new, reset, new_h)), h, update)

    def features(self, h: Tensor, inputs: Tensor) -> Tensor:
        """The head's layer: hidden (K, B, H) and the projected inputs' last part (K, B, U) -> (K, B, U)."""
        u = self.to_head(h) + inputs
        return silu(u if self.norm is None else self.norm(u))

    def advance(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The next latent (K, B, D) and the extra outputs (K, B, ·) from the features of this step."""
        out = self.to_step(features)
        if self.residual:
            step = out * self.step_scale
            if self.clamped:
                step = torch.clamp(step, -self.step_bound, self.step_bound)
            after = z + step * self.moving
        else:
            after = torch.where(self.moving > 0, out, z)
        extras = self.to_extras(features) if self.to_extras is not None else features[..., :0]
        if self.num_events:
            after = after.index_copy(-1, self.event_dims, self.jump(extras))
        return after, extras

    def event_logits(self, extras: Tensor) -> Tensor:
        """(…, E, L) logits of the level after the step; padding levels are impossible."""
        logits = extras[..., extras.shape[-1] - self.num_events * self.num_levels :]
        logits = logits.reshape(*logits.shape[:-1], self.num_events, self.num_levels)
        return logits.masked_fill(self.levels.isnan(), -1e9)

    def jump(self, extras: Tensor) -> Tensor:
        """The likeliest level of each event dimension, (…, E); the gradient passes through the softmax."""
        soft = self.event_logits(extras).softmax(-1)
        hard = one_hot(soft.argmax(-1), self.num_levels).to(soft)
        return ((hard + soft - soft.detach()) * self.levels.nan_to_num()).sum(-1)

    def log_noise(self, extras: Tensor) -> Tensor:
        """(…, D) log σ of the next latent in units of the step scale, kept within e^±6."""
        return 6 * torch.tanh(extras[..., : self.latent_size] / 6) + self.step_scale.log()

    def outcome(self, features: Tensor, z: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised reward and end-of-episode logit, each (K, B, T), of transitions (K, B, T, ·)."""
        x = torch.cat([features, z, after - z], dim=-1)
        k, b, t, width = x.shape
        first, second = self.to_outcome
        out = second(silu(first(x.reshape(k, b * t, width)))).view(k, b, t, 2)
        return out[..., 0], out[..., 1]

    def follow(self, z: Tensor, actions: Tensor) -> Unrolled:
        """One-step predictions along real inputs z (K, B, T, D), actions (K, B, T, A): only the GRU is sequential."""
        k, b, t, d = z.shape
        projected = self.project_actions(actions) + self.from_z(z.reshape(k, b * t, d)).view(k, b, t, -1)
        h, hidden = self.initial_hidden(b), []
        to_gru, to_head = torch.split(projected, self.input_sizes, dim=-1)
        for inputs in to_gru.unbind(2):
            h = self.recur(inputs, h)
            hidden.append(h)
        stacked = torch.stack(hidden, dim=2).reshape(k, b * t, -1)
        features = self.features(stacked, to_head.reshape(k, b * t, -1))
        after, extras = self.advance(z.reshape(k, b * t, d), features)
        shape = (k, b, t, -1)
        return Unrolled(after.view(shape), z, features.view(shape), extras.reshape(k, b, t, extras.shape[-1]))

    def free_run(
        self, z: Tensor, actions: Tensor, forced: Tensor | None = None, truncate_every: int = 0
    ) -> Unrolled:
        """Predictions from z[:, :, 0] on the model's own latents, put back on the real ones where `forced`.

        Args:
            z: (K, B, T, D) real latents, of which only the first is read where `forced` is None.
            actions: (K, B, T, A).
            forced: (K, B, T) bool, true where step t starts from the real latent (scheduled sampling, Bengio 2015).
            truncate_every: cut the gradient through time every so many steps; 0 never does.
        """
        current, h = z[:, :, 0], self.initial_hidden(z.shape[1])
        states, inputs, features, extras = [], [], [], []
        for t, projected in enumerate(self.project_actions(actions).unbind(2)):
            if truncate_every and t and t % truncate_every == 0:
                current, h = current.detach(), h.detach()
            if forced is not None and t:
                current = torch.where(forced[:, :, t, None], z[:, :, t], current)
            inputs.append(current)
            current, h, u, extra = self.step(current, projected, h)
            states.append(current)
            features.append(u)
            extras.append(extra)
        return Unrolled(*(torch.stack(x, dim=2) for x in (states, inputs, features, extras)))

    def step(self, z: Tensor, projected: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step of all members: next latent, hidden, features, extra outputs."""
        mixed = torch.baddbmm(projected, z, self.from_z.weight)
        to_gru, to_head = torch.split(mixed, self.input_sizes, dim=-1)
        h = self.recur(to_gru, h)
        u = self.features(h, to_head)
        after, extra = self.advance(z, u)
        return after, h, u, extra
