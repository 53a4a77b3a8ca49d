"""The discriminator: the trust network inside the ensemble's training (L_trust, L_feat). It never gates or judges.

B rollouts, T steps, D latent dimensions, F features.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.parametrizations import spectral_norm

from phaseb.config.trust import DiscriminatorConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError, DivergenceError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.seeding import derive_seed, numpy_generator, torch_generator
from phaseb.trust.features import report_features

LAGS = (1, 2, 4, 8)
"""Steps between the observations of a window."""
WINDOW_STEPS = 4
"""Observations in a window."""
UNITS = 64
"""Hidden units of a lag's network, or of the report's."""
STEEPNESS = 4.0
"""Largest slope of the windows' log-odds, by the spectral norm."""
INSTANCE_NOISE = 0.1
"""Standard deviation σ of the noise added to both sides in the discriminator's training."""
LEARNING_RATE = 5e-4
"""Learning rate of Adam."""
LABEL_SMOOTHING = 0.05
"""How far real labels stay from one."""


class WindowNetwork(nn.Module):
    """One small spectrally normalised network a lag k, over (z_t, z_{t+k}, z_{t+2k}, …) and their differences.

    Total variance is blind to what happens between steps; windows at several lags are not. The spectral norm
    (Miyato et al. 2018) bounds how steep the log-odds can be, so that the discriminator cannot blow the world model up.
    """

    def __init__(self, config: DiscriminatorConfig, num_dims: int) -> None:
        super().__init__()
        width = (2 * WINDOW_STEPS - 1) * num_dims
        self.hidden = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Linear(width, UNITS)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Linear(UNITS, UNITS)),
                nn.LeakyReLU(0.2),
            )
            for _ in LAGS
        )
        self.readout = nn.ModuleList(spectral_norm(nn.Linear(UNITS, 1)) for _ in LAGS)
        # Differences are small beside levels: measured in their real size at each lag, they weigh as much.
        self.register_buffer("pace", torch.ones(len(LAGS)))
        self.pace: Tensor

    @torch.no_grad()
    def follow(self, z_real: Tensor, momentum: float) -> None:
        """Move the size of real differences at each lag towards that of z_real (B, T, D); momentum 1 sets it."""
        for i, lag in enumerate(LAGS):
            if lag < z_real.shape[1]:
                size = (z_real[:, lag:] - z_real[:, :-lag]).square().mean().sqrt().clamp(min=1e-3)
                self.pace[i] += momentum * (size - self.pace[i])

    def states(self, z: Tensor) -> list[Tensor]:
        """Hidden states (B, W, units) of every lag whose window fits into T; the others are left out."""
        found = []
        for lag, network, pace in zip(LAGS, self.hidden, self.pace, strict=True):
            count = z.shape[1] - lag * (WINDOW_STEPS - 1)
            if count > 0:
                cut = torch.stack([z[:, lag * i : lag * i + count] for i in range(WINDOW_STEPS)], dim=2)
                change = cut.diff(dim=2) / pace
                found.append(network(torch.cat([cut.flatten(2), change.flatten(2)], dim=-1)))
        if not found:
            raise ValueError(f"rollouts of {z.shape[1]} steps are shorter than the discriminator's shortest window")
        return found

    def forward(self, z: Tensor) -> Tensor:
        """Log-odds of being real, (B, all windows)."""
        states = self.states(z)
        odds = torch.cat([read(h)[..., 0] for read, h in zip(self.readout, states, strict=False)], dim=1)
        return STEEPNESS * odds

    def features(self, z: Tensor) -> Tensor:
        """Mean hidden state of every lag, (B, lags · units)."""
        return torch.cat([h.mean(1) for h in self.states(z)], dim=1)


class ReportNetwork(nn.Module):
    """The founding report's trust_net: an MLP on mean, std, min, max, variance and smoothness of the episode."""

    def __init__(self, config: DiscriminatorConfig, num_dims: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6 * num_dims, UNITS),
            nn.ReLU(),
            nn.Linear(UNITS, UNITS),
            nn.ReLU(),
            nn.Linear(UNITS, 1),
        )

    def forward(self, z: Tensor) -> Tensor:
        return torch.as_tensor(self.layers(report_features(z)))

    def features(self, z: Tensor) -> Tensor:
        return z.new_zeros(len(z), 0)


class Discriminator:
    """What the world model's objective asks of a discriminator: a module, L_trust, features for L_feat, an update.

    Args:
        config: the discriminator section.
        num_dims: D.
        context: seed, place among the workers, device.
        real: the real episodes of the discriminator alone (see `splits.split_episodes`). None: it learns from the
            batches that the world model is trained on, and may not share those with a gate.
    """

    def __init__(
        self, config: DiscriminatorConfig, num_dims: int, context: WorkerContext, real: Trajectories | None = None
    ) -> None:
        self.config, self.context, self.real = config, context, real
        self.num_updates = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(context.seed, "discriminator", "init"))
            network = WindowNetwork if config.form == "windows" else ReportNetwork
            self.network: WindowNetwork | ReportNetwork = network(config, num_dims).to(context.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE, betas=(0.5, 0.9))

    def module(self) -> nn.Module:
        return self.network

    def loss(self, z_syn: Tensor) -> Tensor:
        """L_trust = BCE(trust_net(z_syn), 1), a scalar, differentiable in z_syn (B, T, D)."""
        odds = self.network.eval()(z_syn)
        return binary_cross_entropy_with_logits(odds, torch.ones_like(odds))

    def features(self, z: Tensor) -> Tensor:
        """Features (B, F) of latents (B, T, D): the report's six, and the discriminator's own hidden states.

        Divided by √F, so that the squared distance of two means is a mean over features, and λ_feat means the same
        whatever the number of dimensions.
        """
        features = torch.cat([report_features(z), self.network.eval().features(z)], dim=1)
        return features / features.shape[1] ** 0.5

    def update(self, z_real: Tensor, z_syn: Tensor) -> dict[str, float]:
        """One step of the discriminator on real and free-running latents (B, T, D), noise on both sides.

        Where the discriminator has episodes of its own, `z_real` only says how many to draw from them, and how long.

        Returns:
            `loss`, `trust_real` and `trust_syn` (mean p(real) of either side).

        Raises:
            DivergenceError: where the loss is not finite.
            DataError: where none of its own episodes is as long as the rollouts.
        """
        if self.real is not None:
            z_real = self._own_episodes(self.real, *z_real.shape[:2]).to(z_real.device)
        generator = torch_generator(self.context.seed, "discriminator", self.num_updates, self.context.rank)
        self.network.train()
        if isinstance(self.network, WindowNetwork):
            self.network.follow(z_real, 1.0 if self.num_updates == 0 else 0.02)
        real, syn = (self.network(self._with_noise(z, generator)) for z in (z_real, z_syn.detach()))
        wanted = torch.full_like(real, 1 - LABEL_SMOOTHING)
        loss = binary_cross_entropy_with_logits(real, wanted)
        loss = loss + binary_cross_entropy_with_logits(syn, torch.zeros_like(syn))
        if not torch.isfinite(loss):
            raise DivergenceError(
                f"discriminator: loss is not finite at update {self.num_updates}; the rollouts diverged"
            )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.context.average_gradients(self.network.parameters())
        self.optimizer.step()
        self.num_updates += 1
        with torch.no_grad():
            trust = {"trust_real": float(real.sigmoid().mean()), "trust_syn": float(syn.sigmoid().mean())}
        return {"loss": float(loss.detach()), **trust}

    def state_dict(self) -> dict[str, Any]:
        slots = self.optimizer.state_dict()["state"]
        moments = {str(i): dict(slot) for i, slot in slots.items()}
        return {"network": self.network.state_dict(), "optimizer": moments, "num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        current = self.optimizer.state_dict()
        current["state"] = {int(i): dict(slot) for i, slot in (state["optimizer"] or {}).items()}
        self.optimizer.load_state_dict(current)
        self.num_updates = int(state["num_updates"])

    def _own_episodes(self, real: Trajectories, count: int, steps: int) -> Tensor:
        """`count` segments of `steps` observations, start states left out as in the rollouts."""
        fit = np.flatnonzero(real.lengths >= steps)
        if len(fit) == 0:
            what = f"none of the discriminator's {len(real)} episodes has {steps} steps"
            raise DataError(f"{what}; lower dynamics.gru.horizon.steps")
        rng = numpy_generator(self.context.seed, "discriminator", "real", self.num_updates, self.context.rank)
        rows = rng.choice(fit, count)
        starts = rng.integers(1, real.lengths[rows] - steps + 2)
        return torch.from_numpy(real.z[rows[:, None], starts[:, None] + np.arange(steps)])

    def _with_noise(self, z: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(z.shape, generator=generator).to(z.device, z.dtype)
        return z + INSTANCE_NOISE * noise
