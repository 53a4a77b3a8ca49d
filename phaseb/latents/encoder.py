"""The network from observations to raw latents: frames through a small CNN, states through an MLP, or both fused.

One frame goes through the CNN once; the stack of the last frames is a stack of its features, so batch encoding of an
episode costs one CNN pass a frame whatever the stack.

Legend: M rows, S state size, F features of a frame, K frames stacked (newest first), D latent dimensions.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

LARGEST_SIDE = 64  # larger frames are averaged down first: the CNN's cost must not grow with the camera


@dataclass(frozen=True)
class EncoderSpec:
    """All that is needed to build an `Encoder` again (stored beside its tensors)."""

    state_size: int
    frame_shape: tuple[int, int, int] | None
    num_dims: int
    stack: int
    hidden: int
    frame_channels: int
    frame_features: int

    @property
    def observation(self) -> str:
        if self.frame_shape is None:
            return "state"
        return "both" if self.state_size else "frames"


class FrameNetwork(nn.Module):
    """(M, H, W, C) uint8 to (M, F): patches of 4 x 4, then strided convolutions down to about 4 x 4."""

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, int, int], channels: int, features: int) -> None:
        super().__init__()
        height, width, colours = shape
        self.shrink = max(1, max(height, width) // LARGEST_SIDE)
        height, width = height // self.shrink, width // self.shrink
        self.register_buffer("mean", torch.zeros(1, colours, height, width))
        self.register_buffer("scale", torch.ones(()))
        patch = 4 if min(height, width) >= 16 else 1
        layers: list[nn.Module] = [nn.Conv2d(colours, channels, patch, stride=patch), nn.SiLU()]
        height, width, inputs = height // patch, width // patch, channels
        while max(height, width) > 4:
            layers += [nn.Conv2d(inputs, 32, 3, stride=2, padding=1), nn.SiLU()]
            height, width, inputs = (height + 1) // 2, (width + 1) // 2, 32
        layers += [nn.Flatten(), nn.Linear(inputs * height * width, features)]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def pixels(self, frames: Tensor) -> Tensor:
        """(M, C, H', W') float from (M, H, W, C) uint8, averaged down where the frame is large."""
        x = frames.permute(0, 3, 1, 2).float()
        return nn.functional.avg_pool2d(x, self.shrink) if self.shrink > 1 else x

    def forward(self, frames: Tensor) -> Tensor:
        return cast(Tensor, self.layers((self.pixels(frames) - self.mean) * self.scale))


class Encoder(nn.Module):
    """Observations to raw (not yet standardised) latents: a linear path plus an MLP with LayerNorm.

    The linear path keeps what a linear probe can read and extrapolates calmly outside the training data.
    """

    state_mean: Tensor
    state_scale: Tensor

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("state_mean", torch.zeros(spec.state_size))
        self.register_buffer("state_scale", torch.ones(spec.state_size))
        inputs = spec.state_size
        if spec.frame_shape is not None:
            self.frames = FrameNetwork(spec.frame_shape, spec.frame_channels, spec.frame_features)
            self.motion = nn.Sequential(
                nn.Linear(spec.stack * spec.frame_features, spec.hidden), nn.LayerNorm(spec.hidden), nn.SiLU(),
                nn.Linear(spec.hidden, spec.frame_features), nn.LayerNorm(spec.frame_features),
            )  # fmt: skip
            inputs += spec.frame_features
        self.linear = nn.Linear(inputs, spec.num_dims)
        self.mlp = nn.Sequential(
            nn.Linear(inputs, spec.hidden), nn.LayerNorm(spec.hidden), nn.SiLU(),
            nn.Linear(spec.hidden, spec.hidden), nn.LayerNorm(spec.hidden), nn.SiLU(),
            nn.Linear(spec.hidden, spec.num_dims),
        )  # fmt: skip

    def fit_inputs(self, states: Tensor | None, frames: Tensor | None) -> None:
        """Freeze the statistics of the inputs from training observations (M, S) and (M, H, W, C)."""
        if states is not None:
            std, mean = torch.std_mean(states.double(), dim=0, correction=0)
            constant = std <= 1e-6 * (1.0 + mean.abs())  # a sensor that never moved must not explode when it does
            self.state_mean.copy_(mean)
            self.state_scale.copy_(torch.where(constant, torch.ones_like(std), std).reciprocal())
        if frames is not None:
            pixels = self.frames.pixels(frames)
            self.frames.mean.copy_(pixels.mean(0, keepdim=True))
            self.frames.scale.copy_(1.0 / (pixels - self.frames.mean).std().clamp_min(1.0))

    def features(self, frames: Tensor) -> Tensor:
        """(M, H, W, C) uint8 to (M, F)."""
        return cast(Tensor, self.frames(frames))

    def normalise(self, state: Tensor) -> Tensor:
        """States (..., S) in standard deviations of the training data."""
        return (state - self.state_mean) * self.state_scale

    def fuse(self, state: Tensor | None, stacked: Tensor | None) -> Tensor:
        """Normalised states (M, S) and stacked frame features (M, K, F), whichever the spec has, to raw z (M, D)."""
        parts = [] if state is None else [state]
        if stacked is not None:
            parts.append(self.motion(stacked.flatten(1)))
        x = torch.cat(parts, dim=-1)
        return cast(Tensor, self.linear(x) + self.mlp(x))


def stack_index(rows: Tensor, stack: int) -> Tensor:
    """(M, K) positions of the last K observations up to `rows` (M,), newest first, repeating the first at the start."""
    return (rows[:, None] - torch.arange(stack, device=rows.device)).clamp_min(0)
