"""Implicit Q-learning (Kostrikov et al. 2022): no value of an action that the data does not hold is ever asked for.

Shapes: R runs, C critics, B rows.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from phaseb.policy.batches import Batch, Noise
from phaseb.policy.networks import NUM_LAYERS, make_mlp
from phaseb.policy.run_group import Metrics
from phaseb.policy.sac import Phase, SoftActorCritic

MAX_ADVANTAGE_WEIGHT = 100.0
"""Largest advantage weight."""


class ImplicitQ(SoftActorCritic):
    """The same networks as soft actor-critic and a state value beside them."""

    def build(self, z_size: int, action_size: int) -> None:
        super().build(z_size, action_size)
        sizes = [z_size, *[self.config.width] * NUM_LAYERS, 1]
        seeds = [spec.drawn(self.context.seed) for spec in self.specs]
        self.value = make_mlp(sizes, seeds, "value", 1, norm=True).to(self.context.device)
        self.optimisers["value"] = self._adam(self.value.parameters(), self.config.critic_lr)

    def _update(self, phase: Phase, batch: Batch, noise: Noise) -> Metrics:
        """Value by expectile, policy by advantage-weighted cloning, critics by the value of the next state."""
        if phase == "imitate":
            return self._behavior_clone(batch)
        with torch.no_grad():
            quality = self._pessimistic(self.targets(batch.z, batch.action), noise)
        metrics, advantage = self._update_value(batch, quality)
        metrics |= self._update_critics(batch, self._target(batch, noise), noise)
        if phase == "act":
            metrics |= self._clone(batch, advantage)
        self._move_targets()
        return metrics

    def _update_value(self, batch: Batch, quality: Tensor) -> tuple[Metrics, Tensor]:
        """Eq. 5: mean of |expectile - 1(u < 0)| u^2, u = min Q(s, a) - V(s)."""
        advantage = quality - self.value(batch.z)[..., 0]
        side = (self.scalars.iql_expectile[:, None] - (advantage.detach() < 0).float()).abs()
        loss = (batch.weight * side * advantage.square()).mean(-1)
        self._optimise("value", loss, self.value.parameters())
        return {"value_loss": loss.detach()}, advantage.detach()

    @torch.no_grad()
    def _target(self, batch: Batch, noise: Noise) -> Tensor:
        """Eq. 6: r + discount * V(s'); a cut state's value is lowered by the critics' spread at the recorded action."""
        value = self.value(batch.next_z)[..., 0]
        if self._any("truncation_pessimism"):
            action = self.actor.mode_action(self.actor(batch.next_z)[0])
            spread = self.targets(batch.next_z, action).std(1, correction=0)
            value = value - batch.cut * self.scalars.truncation_pessimism[:, None] * spread
        return batch.reward + batch.discount * value

    def _clone(self, batch: Batch, advantage: Tensor) -> Metrics:
        """Eq. 7 with squared distance for the likelihood: it keeps the scale of the first phase, and a gripper that is
        recorded as open or shut does not need the tails of a Gaussian."""
        factor = torch.exp(self.scalars.iql_beta[:, None] * advantage).clamp(max=MAX_ADVANTAGE_WEIGHT)
        factor = factor / self.context.all_reduce_mean(factor.mean(-1, keepdim=True)).clamp(min=1e-6)
        distance = self.actor.bc_distance(self.actor(batch.z)[0], batch.action)
        loss = (batch.weight * factor * distance).mean(-1)
        norms = self._optimise("actor", loss, self.actor.parameters())
        return {"actor_loss": loss.detach(), "actor_gradient": norms, "advantage_weight": factor.amax(-1)}

    def networks(self) -> list[nn.Module]:
        return [*super().networks(), self.value]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"value": self.value.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.value.load_state_dict(state["value"])
