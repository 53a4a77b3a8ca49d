"""The simplest generator of your own: ridge regression of the next latent and of the reward.

phaseb run --config configs/dev.yaml "dynamics.plugins={ridge: {model: ridge_model:RidgeModel}}" \\
    synthesis.generator=ridge policy.augmentation.generator=ridge run.dir=runs/ridge
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from phaseb.dynamics.custom import Step
from phaseb.episodes.trajectories import Trajectories


class RidgeModel:
    """(z' - z, r) = [z, a, 1] W + noise, fitted in closed form; noise is drawn from what the fit left over."""

    def __init__(self, settings: dict[str, Any], latent_size: int, action_size: int) -> None:
        self.weights = torch.zeros(latent_size + action_size + 1, latent_size + 1)
        self.spread = torch.zeros(latent_size)

    def fit(self, train: Trajectories, seed: int) -> None:
        z, actions, rewards = map(torch.from_numpy, (train.z, train.actions, train.rewards))
        mask = torch.from_numpy(train.mask)
        x = _inputs(z[:, :-1][mask], actions[mask])
        y = torch.cat([z.diff(dim=1)[mask], rewards[mask][:, None]], dim=-1)
        self.weights = torch.linalg.solve(x.T @ x + torch.eye(x.shape[1]), x.T @ y)
        self.spread = (y - x @ self.weights)[:, :-1].std(dim=0)

    def step(self, z: Tensor, action: Tensor, memory: Any, generator: torch.Generator) -> Step:
        out = _inputs(z, action) @ self.weights
        noise = self.spread * torch.randn(z.shape, generator=generator)
        nothing = torch.zeros(len(z))  # it never ends an episode, and gives no uncertainty
        return Step(z + out[:, :-1] + noise, out[:, -1], terminal=nothing, uncertainty=nothing)

    def state_dict(self) -> dict[str, Tensor]:
        return {"weights": self.weights, "spread": self.spread}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.weights, self.spread = state["weights"], state["spread"]


def _inputs(z: Tensor, action: Tensor) -> Tensor:
    return torch.cat([z, action, torch.ones(len(z), 1)], dim=-1)
