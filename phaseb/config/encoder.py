"""Settings of the encoder, the latent actions and the clusters of episodes."""

from typing import Literal

from pydantic import Field

from phaseb.config.section import Section


class LatentActionsConfig(Section):
    """Actions inferred from pairs of latents, for episodes without actions."""

    mode: Literal["auto", "always", "never"] = Field(
        "auto", description="auto: fitted only if some episode has no actions"
    )
    num_dims: int = Field(
        0,
        ge=0,
        le=64,
        description="dimensions of a latent action if no episode has actions; 0: 99 % of the variance that a "
        "linear step leaves",
    )
    num_steps: int = Field(1500, ge=1, description="optimiser steps")


class LatentsConfig(Section):
    """The contrastive encoder from observations to z_V, and the decoder and latent actions that are fitted after it."""

    observation: Literal["auto", "state", "frames", "both"] = Field(
        "auto", description="inputs of the encoder; auto: every kind that all episodes have"
    )
    num_dims: int = Field(
        16,
        ge=1,
        le=1024,
        description="dimensions learned from frames, at most; z_V holds them beside the sensors' dimensions",
    )
    stack: int = Field(3, ge=1, le=16, description="consecutive frames in one input (a single frame shows no speed)")
    hidden: int = Field(128, ge=8, le=4096, description="width of the hidden layers")
    num_steps: int = Field(300, ge=1, description="optimiser steps")
    num_groups: int = Field(
        2, ge=1, description="groups of segments a step, each contrasted on its own; a multiple of the workers"
    )
    num_segments: int = Field(8, ge=1, description="segments a group, from different episodes if there are enough")
    segment_steps: int = Field(16, ge=2, description="observations a segment")
    learning_rate: float = Field(5e-3, gt=0, description="peak learning rate (warm-up, then cosine to zero)")
    decoder_steps: int = Field(600, ge=0, description="optimiser steps of the state decoder; 0 leaves it linear")
    latent_actions: LatentActionsConfig = Field(LatentActionsConfig(), description="latent actions")


class BricksConfig(Section):
    """Semantic clusters of episodes in latent space."""

    num_bricks: int = Field(0, ge=0, le=1000, description="clusters; 0 chooses the number with the best silhouette")
