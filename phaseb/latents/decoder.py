"""From latents back to the state, fitted after the encoder is frozen, so that it cannot shape what z_V is.

Legend: M rows, D latent dimensions, S state size.
"""

from typing import cast

import torch
from torch import Tensor, nn

from phaseb.latents.standardise import Standardizer
from phaseb.runtime.seeding import derive_seed, torch_generator

BATCH = 512


class StateDecoder(nn.Module):
    """(..., D) to (..., S): least squares plus a small MLP on what that leaves."""

    def __init__(self, num_dims: int, state_size: int, hidden: int) -> None:
        super().__init__()
        self.outputs = Standardizer(state_size, torch.float64)  # a sensor that never moves is decoded as its constant
        self.linear = nn.Linear(num_dims, state_size)
        self.mlp = nn.Sequential(
            nn.Linear(num_dims, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, state_size),
        )
        nn.init.zeros_(cast(nn.Linear, self.mlp[-1]).weight)
        nn.init.zeros_(cast(nn.Linear, self.mlp[-1]).bias)

    def forward(self, z: Tensor) -> Tensor:
        return self.outputs.inverse(self.standardised(z))

    def standardised(self, z: Tensor) -> Tensor:
        """The state in standard deviations of the training data."""
        return cast(Tensor, self.linear(z) + self.mlp(z))


def fit_decoder(z: Tensor, state: Tensor, hidden: int, num_steps: int, seed: int) -> StateDecoder:
    """Fit a decoder to latents (M, D) and states (M, S) of training episodes, with smooth-L1 loss and AdamW."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "decoder", "init"))
        decoder = StateDecoder(z.shape[1], state.shape[1], hidden).to(z.device)
    decoder.outputs.fit_units(state)
    target = decoder.outputs(state).float()
    solve_linear(decoder.linear, z, target)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=2e-3, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(num_steps, 1))
    generator = torch_generator(seed, "decoder", "batch")
    for _ in range(num_steps):
        rows = torch.randint(len(z), (min(BATCH, len(z)),), generator=generator).to(z.device)
        loss = nn.functional.smooth_l1_loss(decoder.standardised(z[rows]), target[rows], beta=0.1)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        scheduler.step()
    return decoder.eval().requires_grad_(False)


@torch.no_grad()
def solve_linear(layer: nn.Linear, x: Tensor, y: Tensor, ridge: float = 1e-3) -> None:
    """Set a layer to the ridge regression of y (M, S) on x (M, D), intercept not penalised."""
    inputs = torch.cat([x, torch.ones_like(x[:, :1])], dim=1).double()
    penalty = ridge * len(x) * torch.eye(inputs.shape[1], dtype=torch.float64, device=x.device)
    penalty[-1, -1] = 0.0
    solution = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ y.double())
    layer.weight.copy_(solution[:-1].T)
    layer.bias.copy_(solution[-1])
