"""Transformers that turn a latent into a chunk of actions.

Shapes: B rows, K steps of a chunk, D latent dimensions, A action dimensions, S style dimensions, W width.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

STYLE_SIZE = 4
NUM_BLOCKS = 1
NUM_HEADS = 4
NUM_FREQUENCIES = 8


class ChunkSizes(NamedTuple):
    """The sizes of a network."""

    z: int
    action: int
    steps: int
    width: int


class ChunkTransformer(nn.Module):
    """Context tokens and one token a step through torch's transformer blocks; reads actions off the steps' tokens."""

    def __init__(self, sizes: ChunkSizes, num_context: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.state = nn.Sequential(nn.Linear(sizes.z, sizes.width), nn.SiLU(), nn.Linear(sizes.width, sizes.width))
        self.places = nn.Parameter(0.02 * torch.randn(num_context + sizes.steps, sizes.width))
        block = nn.TransformerEncoderLayer(
            sizes.width, NUM_HEADS, 2 * sizes.width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, NUM_BLOCKS, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(sizes.width), nn.Linear(sizes.width, sizes.action))

    def attend(self, context_BCW: Tensor, steps_BKW: Tensor, padded_BK: Tensor | None = None) -> Tensor:
        """(B, K, A) what is read off the steps; tokens of padded steps are seen by none."""
        tokens = torch.cat([context_BCW, steps_BKW], 1) + self.places
        hidden = None
        if padded_BK is not None:
            seen = torch.zeros(context_BCW.shape[:2], dtype=torch.bool, device=tokens.device)
            hidden = torch.cat([seen, padded_BK], 1)
        read = self.blocks(tokens, src_key_padding_mask=hidden)[:, context_BCW.shape[1] :]
        return torch.as_tensor(self.head(read))


class ActNetwork(ChunkTransformer):
    """Action chunking with transformers, on latents (Zhao et al. 2023): a conditional variational autoencoder.

    A style (B, S) tells what the latent does not; it is encoded from the chunk in training, and zero at run time.
    """

    def __init__(self, sizes: ChunkSizes) -> None:
        super().__init__(sizes, num_context=2)
        self.style = nn.Linear(STYLE_SIZE, sizes.width)
        inputs = sizes.z + sizes.steps * (sizes.action + 1)
        self.encoder = nn.Sequential(
            nn.Linear(inputs, 2 * sizes.width), nn.SiLU(), nn.Linear(2 * sizes.width, 2 * STYLE_SIZE)
        )

    def forward(self, z_BD: Tensor, style_BS: Tensor) -> Tensor:
        """A chunk (B, K, A)."""
        context = torch.stack([self.state(z_BD), self.style(style_BS)], 1)
        queries = torch.zeros(z_BD.shape[0], self.sizes.steps, self.sizes.width, dtype=z_BD.dtype, device=z_BD.device)
        return self.attend(context, queries)

    def encode(self, z_BD: Tensor, chunk_BKA: Tensor, inside_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, S) of the style of a chunk whose steps outside are padding."""
        known = torch.cat([chunk_BKA * inside_BK[..., None], inside_BK[..., None]], -1)
        mean, log_variance = self.encoder(torch.cat([z_BD, known.flatten(1)], -1)).chunk(2, -1)
        return mean, log_variance.clamp(-8, 4)


class FlowNetwork(ChunkTransformer):
    """The velocity of a flow from noise to chunks (Lipman et al. 2023), conditioned on a latent."""

    frequencies: Tensor

    def __init__(self, sizes: ChunkSizes) -> None:
        super().__init__(sizes, num_context=2)
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(NUM_FREQUENCIES) / 2, persistent=False)
        self.time = nn.Linear(2 * NUM_FREQUENCIES, sizes.width)
        self.action = nn.Linear(sizes.action, sizes.width)

    def forward(self, z_BD: Tensor, noisy_BKA: Tensor, time_B: Tensor, padded_BK: Tensor | None = None) -> Tensor:
        """The velocity (B, K, A) at a time in [0, 1]."""
        angles = time_B[:, None] * self.frequencies
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        return self.attend(torch.stack([self.state(z_BD), time], 1), self.action(noisy_BKA), padded_BK)


NETWORKS: dict[str, type[ActNetwork] | type[FlowNetwork]] = {"act": ActNetwork, "flow": FlowNetwork}
