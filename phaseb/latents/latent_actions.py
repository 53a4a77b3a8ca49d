"""Actions recovered from what they did: u from (z_t, z_{t+1}) through a bottleneck (after LAPO, Schmidt & Jiang 2024).

An inverse model q(u | z_t, z_{t+1}) and a forward model z_{t+1} = f(z_t, u) are trained together; KL(q || p) to a
learned prior p(u | z_t) keeps u from carrying more of z_{t+1} than an action would. New data is never generated with
the codes of the episode that it starts from: those have seen the future. Codes follow those of training episodes that
were near (see `code_bank`).

Where no episode has actions, codes stand for all that a latent does not tell of the next one. How many dimensions that
takes is asked of the data: as many principal directions of what a linear step leaves unexplained as hold 99 % of it.

Legend: M transitions, D latent dimensions, U code dimensions, A action size. Codes are squashed by tanh to (-1, 1).
"""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phaseb.config.encoder import LatentActionsConfig
from phaseb.errors import DivergenceError
from phaseb.latents.decoder import solve_linear
from phaseb.latents.latent_action_bank import MOST, LatentActionBank, RetrievalPolicy
from phaseb.runtime.seeding import derive_seed, torch_generator

HIDDEN_SIZE = 64
"""Width of the inverse, forward and prior networks."""
BATCH_SIZE = 256
"""Transitions a step."""
LEARNING_RATE = 2e-3
"""Peak learning rate (cosine to zero)."""
BOTTLENECK = 0.02
"""Weight of KL(code || prior): higher lets less through."""
FREE_BOTTLENECK = 0.0005
"""The weight where no episode has actions: codes then stand for all that a latent does not tell."""
NUM_NEIGHBOURS = 5
"""Near training transitions, one of which a rollout's codes follow."""
FOLLOW_STEPS = 4.0
"""Steps of one training episode that are followed, on average."""

LOG_STD = (-4.0, 1.0)  # the narrowest code and the widest prior
HELD, LEAST_DIMS = 0.99, 2  # share of the unexplained that codes have dimensions for, and their fewest


class LatentActions(nn.Module):
    """Inverse model, forward model, prior, and (where real actions were seen) a decoder to them."""

    delta_std: Tensor

    def __init__(
        self,
        latent_dims: int,
        num_dims: int,
        action_size: int,
        hidden: int,
        neighbours: int,
        follow_steps: float,
        num_known: int = 0,
    ) -> None:
        super().__init__()
        self.sizes = {
            "latent_dims": latent_dims,
            "num_dims": num_dims,
            "action_size": action_size,
            "hidden": hidden,
            "neighbours": neighbours,
            "follow_steps": follow_steps,
            "num_known": num_known,
        }
        self.bank = LatentActionBank(latent_dims, num_dims, num_known)
        self.num_dims, self.action_size = num_dims, action_size
        self.neighbours, self.follow_steps = neighbours, follow_steps
        self.register_buffer("delta_std", torch.ones(latent_dims))
        self.inverse = _mlp(2 * latent_dims, hidden, 2 * num_dims)
        self.prior = _mlp(latent_dims, hidden, 2 * num_dims)
        self.forward_model = _mlp(latent_dims + num_dims, hidden, latent_dims)
        self.forward_linear = nn.Linear(latent_dims + num_dims, latent_dims)
        if action_size:
            self.action_decoder = _mlp(latent_dims + num_dims, hidden, action_size)

    def infer(self, z: Tensor, next_z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std of q(u | z, z'), before tanh, each (M, U)."""
        return _gaussian(self.inverse(torch.cat([z, (next_z - z) / self.delta_std], dim=-1)))

    def prior_of(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std of p(u | z), before tanh, each (M, U)."""
        return _gaussian(self.prior(z))

    def predict(self, z: Tensor, code: Tensor) -> Tensor:
        """z' of the forward model for squashed codes (M, U)."""
        x = torch.cat([z, code], dim=-1)
        return cast(Tensor, z + self.delta_std * (self.forward_linear(x) + self.forward_model(x)))

    def decode_action(self, z: Tensor, code: Tensor) -> Tensor:
        """Real actions (M, A) in [-1, 1] of squashed codes at z."""
        return torch.tanh(self.action_decoder(torch.cat([z, code], dim=-1)))

    def follow(self, generator: torch.Generator) -> Callable[[Tensor, int], Tensor]:
        """Actions for generation as a policy of (latents (N, D), step): those that near training episodes went on with.

        Real ones where known, else codes; see `RetrievalPolicy`.
        """
        codes = RetrievalPolicy(self.bank, self.neighbours, self.follow_steps, generator)

        @torch.no_grad()
        def act(z: Tensor, step: int) -> Tensor:
            return self.decode_action(z, codes(z, step)) if self.action_size else codes(z, step)

        return act

    def remember(self, z: Sequence[Tensor], seed: int) -> None:
        """Keep the codes of training episodes, each (T+1, D), for `follow`: of more than it holds an even draw."""
        if sum(len(x) - 1 for x in z) > MOST:
            z = [z[i] for i in torch.randperm(len(z), generator=torch_generator(seed, "bank")).tolist()]
        codes = [
            torch.tanh(_draw(*self.infer(x[:-1], x[1:]), torch_generator(seed, "bank", i))) for i, x in enumerate(z)
        ]
        self.bank = LatentActionBank.of(z, codes)
        self.sizes["num_known"] = len(self.bank.z)

    @torch.no_grad()
    def recover(self, z: NDArray[np.float32], seed: int, episode: str) -> NDArray[np.float32]:
        """The actions of one recorded episode (T+1, D): (T, A) real ones where known, else codes (T, U).

        Codes are sampled, not means: a mean would carry z_{t+1} past the bottleneck.
        """
        latents = torch.from_numpy(z).to(self.delta_std.device)
        code = torch.tanh(_draw(*self.infer(latents[:-1], latents[1:]), torch_generator(seed, "code", episode)))
        actions = self.decode_action(latents[:-1], code) if self.action_size else code
        return cast(NDArray[np.float32], actions.cpu().numpy())


def fit_latent_actions(
    config: LatentActionsConfig, z: Sequence[Tensor], actions: Sequence[Tensor | None], seed: int
) -> LatentActions:
    """Fit latent actions to standardised latents of training episodes, each (T+1, D), with (T, A) or None.

    Where some episodes carry actions, codes have as many dimensions as those and a decoder to them is fitted.
    """
    known = [a for a in actions if a is not None]
    size = known[0].shape[1] if known else 0
    now, after = torch.cat([x[:-1] for x in z]), torch.cat([x[1:] for x in z])
    num_dims = size or config.num_dims or unexplained_dims(now, after)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "latent_actions", "init"))
        sizes = (z[0].shape[1], num_dims, size, HIDDEN_SIZE, NUM_NEIGHBOURS, FOLLOW_STEPS)
        model = LatentActions(*sizes).to(z[0].device)
    delta = (after - now).std(0, correction=0)
    model.delta_std.copy_(delta.clamp_min(1e-3 * float(delta.mean()) + 1e-6))
    with torch.no_grad():
        nothing = torch.zeros(len(now), model.num_dims, device=now.device)
        drift = model.forward_linear
        without_code = nn.Linear(now.shape[1] + model.num_dims, now.shape[1], device=now.device)
        solve_linear(without_code, torch.cat([now, nothing], dim=1), (after - now) / model.delta_std)
        drift.bias.copy_(without_code.bias)
        drift.weight[:, : now.shape[1]] = without_code.weight[:, : now.shape[1]]
    _train(model, config, now, after, seed)
    if size:
        _train_decoder(model, config, z, actions, seed)
    model.eval().requires_grad_(False)
    model.remember(z, seed)
    return model


def unexplained_dims(now: Tensor, after: Tensor) -> int:
    """Principal directions that hold 99 % of what no linear function of z (M, D) explains of the next z."""
    x = torch.cat([now, torch.ones_like(now[:, :1])], 1).double()
    left = after.double() - x @ torch.linalg.lstsq(x, after.double(), driver="gelsd").solution
    held = torch.linalg.eigvalsh(left.T @ left).flip(0).clamp_min(0).cumsum(0)
    return max(LEAST_DIMS, int((held < HELD * held[-1]).sum()) + 1) if held[-1] > 0 else LEAST_DIMS


def _train(model: LatentActions, config: LatentActionsConfig, now: Tensor, after: Tensor, seed: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.num_steps)
    generator = torch_generator(seed, "latent_actions", "batch")
    bottleneck = BOTTLENECK if model.action_size else FREE_BOTTLENECK
    for step in range(config.num_steps):
        rows = torch.randint(len(now), (min(BATCH_SIZE, len(now)),), generator=generator).to(now.device)
        mean, log_std = model.infer(now[rows], after[rows])
        prior_mean, prior_log_std = model.prior_of(now[rows])
        code = torch.tanh(_draw(mean, log_std, generator))
        error = (model.predict(now[rows], code) - after[rows]) / model.delta_std
        ratio = (2 * (log_std - prior_log_std)).exp()
        leak = 0.5 * (ratio + (mean - prior_mean).square() / (2 * prior_log_std).exp() - 1 - ratio.log()).sum(-1)
        loss = error.square().mean() + bottleneck * leak.mean()
        if not torch.isfinite(loss):
            raise DivergenceError(f"latent actions: loss is not finite at step {step}; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        scheduler.step()


def _train_decoder(
    model: LatentActions, config: LatentActionsConfig, z: Sequence[Tensor], actions: Sequence[Tensor | None], seed: int
) -> None:
    pairs = [(x, a.to(x.device)) for x, a in zip(z, actions, strict=True) if a is not None]
    now, after = torch.cat([x[:-1] for x, _ in pairs]), torch.cat([x[1:] for x, _ in pairs])
    target = torch.cat([a for _, a in pairs])
    optimizer = torch.optim.AdamW(model.action_decoder.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.num_steps)
    generator = torch_generator(seed, "latent_actions", "decoder")
    for _ in range(config.num_steps):
        rows = torch.randint(len(now), (min(BATCH_SIZE, len(now)),), generator=generator).to(now.device)
        with torch.no_grad():
            code = torch.tanh(_draw(*model.infer(now[rows], after[rows]), generator))
        loss = (model.decode_action(now[rows], code) - target[rows]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        scheduler.step()


def _gaussian(parameters: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = parameters.chunk(2, dim=-1)
    return mean, log_std.clamp(*LOG_STD)


def _draw(mean: Tensor, log_std: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean.device)
    return mean + log_std.exp() * noise


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LayerNorm(hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.LayerNorm(hidden),
        nn.SiLU(),
        nn.Linear(hidden, outputs),
    )
