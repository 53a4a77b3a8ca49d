"""The networks of many runs as one: every parameter carries leading run dimensions, a layer is one batched product.

Shapes: R runs, C critics, B rows, D latent dimensions, A action dimensions, H units. Each run's weights are drawn
from its own seed, so a run starts the same whoever trains beside it.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from phaseb.nn.precision import batched_linear
from phaseb.runtime.seeding import torch_generator

NUM_LAYERS = 2
"""Hidden layers."""

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0  # the range CleanRL's and SB3's tanh policies keep to
_LARGEST_ACTION = 1 - 1e-6  # of a mean of members, so that it can be squashed back
_LOG_2 = math.log(2.0)
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Stack(nn.Module):
    """G perceptrons side by side: (G, B, inputs) -> (G, B, outputs), ReLU between layers.

    LayerNorm, where asked for, has no affine part of its own: the next layer's weights can learn it.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor], norm: bool) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList(biases)
        self.norm = norm

    def forward(self, x_GBI: Tensor) -> Tensor:
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            # values and actions are read off the last layer: their digits count
            x_GBI = batched_linear(bias, x_GBI, weight) if layer < last else torch.baddbmm(bias, x_GBI, weight)
            if layer < last:
                x_GBI = nnf.layer_norm(x_GBI, x_GBI.shape[-1:]) if self.norm else x_GBI
                x_GBI = torch.relu_(x_GBI)
        return x_GBI


def make_mlp(sizes: Sequence[int], seeds: Sequence[int], name: str, members: int, norm: bool) -> Stack:
    """Perceptrons of `sizes` for every seed, `members` of them each (G = seeds x members).

    Weights and biases are uniform in +-1/sqrt(inputs), as `torch.nn.Linear` starts; the last layer is ten times
    smaller, so that a policy starts near zero action and critics start near zero value.
    """
    weights, biases = [], []
    generators = {seed: torch_generator(seed, "policy", name) for seed in seeds}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        bound = 1 / math.sqrt(inputs) * (0.1 if layer == len(sizes) - 2 else 1.0)
        drawn = {s: _uniform(g, bound, members, inputs + 1, outputs) for s, g in generators.items()}
        block = torch.cat([drawn[seed] for seed in seeds])
        weights.append(block[:, :inputs].clone())
        biases.append(block[:, inputs:].clone())
    return Stack(weights, biases, norm)


class HybridActions(NamedTuple):
    """What a policy may do: every combination of its binary actions, beside one draw of its other dimensions.

    G combinations, of which a policy without binary actions has one.
    """

    actions: Tensor  # (R, G, B, A)
    log_density: Tensor  # (R, G, B) of each
    share: Tensor  # (R, G, B) probability of each combination; they add up to 1


class ActorStack(nn.Module):
    """R squashed Gaussian policies (Haarnoja et al. 2018, appendix C): a = tanh(mean + std * noise).

    A dimension that was only ever recorded at two levels (a gripper: open or shut) is binary: it takes the upper
    level with probability sigmoid(2 mean), so that tanh(mean) is its expectation on levels -1 and 1. Values between
    the levels are never asked for, and a learner sees both sides of a level, not the slope at one of them.

    A policy may have K members: the mean of their most likely actions acts.

    Args:
        stack: R x K networks, the members of a run side by side.
        levels: (A, 2) lower and upper level of binary actions, the same twice for other dimensions; None: none.
        num_members: K.
    """

    levels: Tensor

    def __init__(self, stack: Stack, levels: Tensor | None = None, num_members: int = 1) -> None:
        super().__init__()
        self.stack, self.num_members = stack, num_members
        self._known: tuple[int, list[int]] | None = None
        size = stack.biases[-1].shape[2] // 2
        self.register_buffer("levels", torch.zeros(size, 2) if levels is None else levels.clone())

    @property
    def binary_actions(self) -> list[int]:
        """The dimensions of two levels. Read once for what the levels are: reading waits for the device."""
        if self._known is None or self._known[0] != self.levels._version:
            self._known = self.levels._version, [int(i) for i in torch.nonzero(self._is_binary)[:, 0]]
        return self._known[1]

    @property
    def _is_binary(self) -> Tensor:
        return self.levels[:, 0] < self.levels[:, 1]

    def forward(self, z_RBD: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before squashing, each (R, B, A)."""
        mean, log_std = self.members(z_RBD)
        if self.num_members == 1:
            return mean[:, 0], log_std[:, 0]
        action = torch.tanh(mean).mean(1)
        return torch.atanh(action.clamp(-_LARGEST_ACTION, _LARGEST_ACTION)), log_std.mean(1)

    def members(self, z_RBD: Tensor) -> tuple[Tensor, Tensor]:
        """The same of every member, each (R, K, B, A)."""
        runs, rows, size = z_RBD.shape
        wide = z_RBD[:, None].expand(-1, self.num_members, -1, -1).reshape(-1, rows, size)
        mean, raw = self.stack(wide).view(runs, self.num_members, rows, -1).chunk(2, dim=-1)
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(raw) + 1)
        return mean, log_std

    def mode_action(self, mean_RBA: Tensor) -> Tensor:
        """The action (R, B, A) of a mean before squashing, without noise."""
        low, high = self.levels[:, 0], self.levels[:, 1]
        return torch.where(low < high, torch.where(mean_RBA > 0, high, low), torch.tanh(mean_RBA))

    def sample(self, z_RBD: Tensor, noise_RBA: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """An action (R, B, A), its log density (R, B), and the most likely action (R, B, A).

        The density is that of the Gaussian before squashing.
        """
        mean, log_std = self(z_RBD)
        action, log_density = self._continuous(mean, log_std, noise_RBA)
        for i in self.binary_actions:
            up = torch.special.ndtr(noise_RBA[..., i]) < torch.sigmoid(2 * mean[..., i])
            action[..., i] = torch.where(up, self.levels[i, 1], self.levels[i, 0])
            log_density = log_density + nnf.logsigmoid(torch.where(up, 2.0, -2.0) * mean[..., i])
        return action, log_density, self.mode_action(mean)

    def choices(self, z_RBD: Tensor, noise_RBA: Tensor) -> tuple[HybridActions, Tensor]:
        """Every combination of binary actions beside one draw of the rest, and the mean before squashing (R, B, A)."""
        mean, log_std = self(z_RBD)
        drawn, log_density = self._continuous(mean, log_std, noise_RBA)
        if not self.binary_actions:
            share = torch.ones_like(log_density)
            return HybridActions(*(part[:, None] for part in (drawn, log_density, share))), mean
        actions, densities, shares = [], [], []
        for ups in itertools.product((False, True), repeat=len(self.binary_actions)):
            action, log_share = drawn.clone(), torch.zeros_like(log_density)
            for i, up in zip(self.binary_actions, ups, strict=True):
                action[..., i] = self.levels[i, int(up)]
                log_share = log_share + nnf.logsigmoid((2.0 if up else -2.0) * mean[..., i])
            actions.append(action)
            densities.append(log_density + log_share)
            shares.append(log_share.exp())
        return HybridActions(*(torch.stack(parts, 1) for parts in (actions, densities, shares))), mean

    def bc_distance(self, mean_RBA: Tensor, action_RBA: Tensor) -> Tensor:
        """Distance of the policy from recorded actions, mean over dimensions, (R, B) of (R, B, A).

        It is the squared error, and for binary actions the negative log likelihood, which also pulls at a policy that
        is surely wrong.
        """
        error = (torch.tanh(mean_RBA) - action_RBA).square()
        if not self.binary_actions:
            return error.mean(-1)
        up = action_RBA > self.levels.mean(-1)
        return torch.where(self._is_binary, binary_loss(mean_RBA, up), error).mean(-1)

    def log_density(self, z_RBD: Tensor, action_RBA: Tensor) -> Tensor:
        """Log density of given actions in [-1, 1], clipped just inside: (R, B)."""
        mean, log_std = self(z_RBD)
        raw = torch.atanh(action_RBA.clamp(-0.999, 0.999))
        noise = (raw - mean) * torch.exp(-log_std)
        gaussian = -0.5 * noise.square() - log_std - _HALF_LOG_2PI - log_squash(raw)
        up = action_RBA > self.levels.mean(-1)
        return torch.where(self._is_binary, -binary_loss(mean, up), gaussian).sum(-1)

    def _continuous(self, mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A draw (R, B, A) of all dimensions as if continuous, and the log density (R, B) of those that are."""
        raw = mean + log_std.exp() * noise
        log_density = -0.5 * noise.square() - log_std - _HALF_LOG_2PI
        log_density = torch.where(self._is_binary, 0.0, log_density) if self.binary_actions else log_density
        return torch.tanh(raw), log_density.sum(-1)


class CriticStack(nn.Module):
    """R ensembles of C action values."""

    def __init__(self, stack: Stack, num_critics: int) -> None:
        super().__init__()
        self.stack = stack
        self.num_critics = num_critics

    def forward(self, z_RBD: Tensor, action_RBA: Tensor) -> Tensor:
        """Values (R, C, B)."""
        inputs = torch.cat([z_RBD, action_RBA], dim=-1)
        runs, rows, size = inputs.shape
        spread = inputs[:, None].expand(runs, self.num_critics, rows, size).reshape(-1, rows, size)
        return self.stack(spread).view(runs, self.num_critics, rows)


def log_squash(raw: Tensor) -> Tensor:
    """log(1 - tanh(raw)^2), exact where tanh saturates: 2 (log 2 - raw - softplus(-2 raw))."""
    return 2 * (_LOG_2 - raw - nnf.softplus(-2 * raw))


def clip_per_run(gradients: Sequence[Tensor], num_runs: int, limit: float) -> Tensor:
    """Scale each run's gradients in place to a joint norm of at most `limit`; returns the norms before, (R,).

    Tensors lead with R or R x members; a run's norm covers all of its members.
    """
    squares = [g.reshape(num_runs, -1).square().sum(1) for g in gradients]
    norms = torch.stack(squares).sum(0).sqrt()
    scale = (limit / (norms + 1e-6)).clamp(max=1.0)
    if scale.is_cpu and bool((scale == 1).all()):  # a GPU would have to be waited for
        return norms
    for gradient in gradients:
        members = gradient.shape[0] // num_runs
        gradient.mul_(scale.repeat_interleave(members).view(-1, *[1] * (gradient.ndim - 1)))
    return norms


def _uniform(generator: torch.Generator, bound: float, *shape: int) -> Tensor:
    return (torch.rand(*shape, generator=generator) * 2 - 1) * bound


def binary_loss(score: Tensor, is_upper: Tensor) -> Tensor:
    """Negative log likelihood of the recorded level, where the log odds of the upper one are twice the score."""
    return nnf.softplus(torch.where(is_upper, -2.0, 2.0) * score)
