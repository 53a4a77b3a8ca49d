"""AdamW for K members at once: gradients clipped member by member, cosine schedule, averaged weights, plain state."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from phaseb.config.dynamics import GRUConfig
from phaseb.nn.data_parallel import WorkerContext

FINAL_RATE_SHARE = 0.02
"""Share of the learning rate that is left at the end of training."""
WEIGHT_DECAY = 1e-4
"""Weight decay of AdamW."""
MAX_GRAD_NORM = 1.0
"""Largest gradient norm of a member."""

WARM_UP = 0.02  # share of training with a rising learning rate


class MemberOptimizer:
    """AdamW (Loshchilov & Hutter 2019) whose clipping never couples members, and an average of the weights."""

    def __init__(self, model: nn.Module, config: GRUConfig, context: WorkerContext) -> None:
        self.config, self.context = config, context
        self.parameters = dict(model.named_parameters())
        self.adam = torch.optim.AdamW(
            list(self.parameters.values()), lr=config.learning_rate, weight_decay=WEIGHT_DECAY, fused=True
        )
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}

    def backward(self, loss: Tensor) -> None:
        """Leave the gradients of a loss that sums over members at the parameters."""
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]

    def set_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """The same by gradients that are known already, in the parameters' order; they are clipped in place."""
        for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
            parameter.grad = gradient

    def step(self, progress: float) -> Tensor:
        """Descend by the gradients there; returns the gradient norm of each member before clipping, (K,)."""
        parameters = list(self.parameters.values())
        self.context.average_gradients(parameters)
        norms = clip_members(parameters, MAX_GRAD_NORM)
        for group in self.adam.param_groups:
            group["lr"] = learning_rate(self.config, progress)
        self.adam.step()
        self._average_weights(progress)
        return norms

    def _average_weights(self, progress: float) -> None:
        decay = min(self.config.ema_decay, progress * self.config.num_steps / 10)
        with torch.no_grad():
            for name, p in self.parameters.items():
                self.average[name].lerp_(p, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Moments and averages by parameter name (no integer keys, no lists)."""
        moments = {name: dict(self.adam.state.get(p, {})) for name, p in self.parameters.items()}
        return {"moments": moments, "average": dict(self.average)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, p in self.parameters.items():
            if state["moments"].get(name):
                self.adam.state[p] = {key: value.clone() for key, value in state["moments"][name].items()}
            self.average[name].copy_(state["average"][name])


def clip_members(parameters: list[nn.Parameter], limit: float) -> Tensor:
    """Scale each member's gradient down to norm `limit`; returns the norms before that, (K,)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([g.flatten(1).square().sum(dim=1) for g in gradients]).sum(dim=0).sqrt()
    scale = (limit / (norms + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.view(-1, *[1] * (g.dim() - 1)))
    return norms


def learning_rate(config: GRUConfig, progress: float) -> float:
    """Linear warm-up, then a cosine down to the final share."""
    if progress < WARM_UP:
        return config.learning_rate * max(progress / WARM_UP, 0.01)
    cosine = 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))
    return config.learning_rate * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * cosine)
