"""The network from frames to raw latents: a small CNN, a stack of its features, and an MLP. States are standardised.

Latents are learned from frames alone. Sensors stay as they are (`projection`): a network that sees both learns what the
sensors show, and ignores what only a camera shows.

One frame goes through the CNN once; the stack of the last frames is a stack of its features, so batch encoding of an
episode costs one CNN pass a frame whatever the stack.

Legend: M rows, S state size, F features of a frame, K frames stacked (newest first), D latent dimensions.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from phaseb.episodes.cameras import num_cameras
from phaseb.episodes.resolution import is_constant
from phaseb.latents.spatial_softmax import spatial_softmax
from phaseb.nn.precision import layers

LARGEST_SIDE = 32  # larger frames are averaged down first: the CNN's cost must not grow with the camera

REACH = 3.0  # coordinates run from -REACH to REACH, so that they vary about as much as standardised states
WHITENING_FLOOR = 1e-3  # relative to the mean variance: directions below it are noise
MOTION_GAIN = 5.0  # what changes between two frames is small beside what is seen, and must not be learned last


@dataclass(frozen=True)
class EncoderSpec:
    """All that is needed to build an `Encoder` again (stored beside its tensors).

    Attributes:
        state_size: S; 0 where no state is seen.
        frame_shape: (H, W, C); None where no frames are seen.
        num_dims: D, learned from frames; 0 where there are none.
        stack: K.
        hidden: units of the MLP's hidden layers.
        frame_channels: of the CNN.
        frame_features: points that are located in a frame of each camera.
    """

    state_size: int
    frame_shape: tuple[int, int, int] | None
    num_dims: int
    stack: int
    hidden: int
    frame_channels: int
    frame_features: int

    @property
    def features_of_frame(self) -> int:
        """F, over all cameras."""
        channels = 0 if self.frame_shape is None else self.frame_shape[2]
        return 3 * self.frame_features * num_cameras(channels)

    @property
    def observation(self) -> str:
        if self.frame_shape is None:
            return "state"
        return "both" if self.state_size else "frames"


class FrameNetwork(nn.Module):
    """(M, H, W, C) uint8 to (M, F): where each of F/3 learned features is seen (x, y), and how strongly.

    Each of several cameras has filters of its own (a convolution in groups); the encoder fuses what they see.
    By a spatial softmax (deep spatial autoencoders, Finn et al. 2016): coordinates are finer than a pixel, move as
    things move, and leave no room to learn pictures by heart, which a plain CNN does on a few thousand frames.
    """

    mean: Tensor
    scale: Tensor
    place: Tensor

    def __init__(self, shape: tuple[int, int, int], channels: int, num_points: int) -> None:
        super().__init__()
        height, width, colours = shape
        self.shrink = max(1, max(height, width) // LARGEST_SIDE)
        height, width = height // self.shrink, width // self.shrink
        self.register_buffer("mean", torch.zeros(height, width, colours))
        self.register_buffer("scale", torch.ones(()))
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        self.register_buffer("place", REACH * torch.stack([x.flatten(), y.flatten()]))
        cameras = num_cameras(colours)
        between, points = cameras * channels, cameras * num_points
        layout = torch.channels_last
        self.first = nn.Conv2d(colours, between, 3, padding=1, groups=cameras).to(memory_format=layout)  # type: ignore[call-overload]
        self.second = nn.Conv2d(between, points, 3, padding=1, groups=cameras).to(memory_format=layout)  # type: ignore[call-overload]
        self.sharpness = nn.Parameter(torch.full((points,), 3.0))

    def pixels(self, frames: Tensor) -> Tensor:
        """(M, H', W', C) float from (M, H, W, C) uint8, averaged down where the frame is large."""
        x, s = frames.float(), self.shrink
        if s == 1:
            return x
        M, _, _, colours = x.shape
        height, width = self.mean.shape[:2]
        x = x[:, : height * s, : width * s].reshape(M, height, s, width * s, colours)
        rows = sum_slices(x, 2).reshape(M, height, width, s, colours)
        return sum_slices(rows, 3) / s**2

    def forward(self, frames: Tensor) -> Tensor:
        x = ((self.pixels(frames) - self.mean) * self.scale).permute(0, 3, 1, 2)
        with layers(x.device):
            seen = self.second(torch.relu(self.first(x)))
        seen = seen.float().permute(0, 2, 3, 1).flatten(1, 2)
        located, strength = spatial_softmax(seen, self.sharpness, self.place)
        return torch.cat([located.flatten(1), torch.tanh(strength / REACH)], dim=1)


def sum_slices(x: Tensor, dim: int) -> Tensor:
    """The sum over one dimension slice by slice: ten times faster than a strided mean on CPUs."""
    total = x.select(dim, 0)
    for i in range(1, x.shape[dim]):
        total = total + x.select(dim, i)
    return total


class Encoder(nn.Module):
    """Frames to raw (not yet standardised) latents: a linear path plus an MLP with LayerNorm. States to standard ones.

    The linear path keeps what a linear probe can read and extrapolates calmly outside the training data.
    """

    state_mean: Tensor
    state_scale: Tensor
    seen_mean: Tensor
    whitening: Tensor

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        # In double precision: an offset (a clock, a far coordinate) comes off before the cast to single.
        self.register_buffer("state_mean", torch.zeros(spec.state_size, dtype=torch.float64))
        self.register_buffer("state_scale", torch.ones(spec.state_size, dtype=torch.float64))
        if spec.frame_shape is None:
            return
        self.frames = FrameNetwork(spec.frame_shape, spec.frame_channels, spec.frame_features)
        inputs = spec.stack * spec.features_of_frame
        self.register_buffer("seen_mean", torch.zeros(inputs))
        self.register_buffer("whitening", torch.eye(inputs))
        self.linear = nn.Linear(inputs, spec.num_dims)
        nn.init.orthogonal_(self.linear.weight)  # to begin with, latents are the inputs turned round: nothing is lost
        self.mlp = nn.Sequential(
            nn.Linear(inputs, spec.hidden),
            nn.LayerNorm(spec.hidden),
            nn.SiLU(),
            nn.Linear(spec.hidden, spec.hidden),
            nn.LayerNorm(spec.hidden),
            nn.SiLU(),
            nn.Linear(spec.hidden, spec.num_dims),
        )

    def fit_inputs(self, states: Tensor | None, frames: Tensor | None, hidden: Tensor | None = None) -> None:
        """Freeze the statistics of the inputs from training observations (M, S) and (M, H, W, C).

        A sensor that never changed, or that is `hidden` (S,) bool, is not seen: its scale is 0, so that it cannot
        explode when it does.
        """
        if states is not None:
            std, mean = torch.std_mean(states.double(), dim=0, correction=0)
            unseen = torch.from_numpy(is_constant(states.cpu().numpy())).to(std.device)
            if hidden is not None:
                unseen |= hidden.to(std.device)
            self.state_mean.copy_(mean)
            self.state_scale.copy_(torch.where(unseen, torch.inf, std).reciprocal())
        if frames is not None:
            pixels = self.frames.pixels(frames)
            self.frames.mean.copy_(pixels.mean(0))
            self.frames.scale.copy_(1.0 / (pixels - self.frames.mean).std().clamp_min(1.0))

    def without_frames(self) -> "Encoder":
        """The same encoder of states, which sees no frames."""
        part = Encoder(replace(self.spec, frame_shape=None, num_dims=0, stack=1)).to(self.state_mean.device)
        part.state_mean.copy_(self.state_mean)
        part.state_scale.copy_(self.state_scale)
        return part.eval().requires_grad_(False)

    @torch.no_grad()
    def condition(self, stacked: Tensor, keep: bool = True) -> None:
        """Whiten what is seen by the statistics of (M, K, F); `keep`: without changing what the encoder computes.

        A load that swings is a small difference of two large coordinates; whitened, it is as easy to learn as they.
        """
        seen = flatten_stack(stacked).double()
        mean = seen.mean(0)
        values, vectors = torch.linalg.eigh((seen - mean).T @ (seen - mean) / len(seen))
        spread = (values.clamp_min(0.0) + WHITENING_FLOOR * values.mean() + 1e-8).sqrt()
        whitening, inverse = (vectors * factor @ vectors.T for factor in (1.0 / spread, spread))
        old = self.whitening.double()
        for layer in (self.linear, cast(nn.Linear, self.mlp[0])) if keep else ():
            weight = layer.weight.double()
            layer.bias.add_(((mean - self.seen_mean) @ old @ weight.T).float())
            layer.weight.copy_((inverse @ old @ weight.T).T.float())
        self.seen_mean.copy_(mean)
        self.whitening.copy_(whitening)

    def features(self, frames: Tensor) -> Tensor:
        """(M, H, W, C) uint8 to (M, F)."""
        return cast(Tensor, self.frames(frames))

    def normalise(self, state: Tensor) -> Tensor:
        """States (..., S) of single or double precision in standard deviations of the training data, single."""
        return ((state.double() - self.state_mean) * self.state_scale).float()

    def fuse(self, stacked: Tensor) -> Tensor:
        """Stacked frame features (M, K, F) of all cameras to raw z (M, D)."""
        x = (flatten_stack(stacked) - self.seen_mean) @ self.whitening
        with layers(x.device):
            bent = self.mlp(x).float()
        return cast(Tensor, self.linear(x) + bent)


def flatten_stack(stacked: Tensor) -> Tensor:
    """(M, K, F) features, newest first, to (M, K * F): the newest, and the change from each to the next."""
    return torch.cat([stacked[:, 0], MOTION_GAIN * (stacked[:, :-1] - stacked[:, 1:]).flatten(1)], dim=1)


def stack_index(rows: Tensor, stack: int) -> Tensor:
    """(M, K) positions of the last K observations up to `rows` (M,), newest first, repeating the first at the start."""
    return (rows[:, None] - torch.arange(stack, device=rows.device)).clamp_min(0)
