"""Settings of the encoder, the latent actions and the clusters of episodes."""

from typing import Literal

from pydantic import Field

from phaseb.config.section import Section


class LatentActionsConfig(Section):
    """Actions recovered from pairs of latents, for episodes that carry none."""

    mode: Literal["auto", "always", "never"] = Field(
        "auto", description="auto: fitted only where some episode has no actions"
    )
    num_dims: int = Field(
        0, ge=0, le=64,
        description="dimensions of a latent action where no episode has actions; 0: as many as hold 99 % of what a "
        "linear step leaves unexplained",
    )  # fmt: skip
    num_steps: int = Field(1500, ge=1, description="optimiser steps")


class LatentsConfig(Section):
    """The contrastive encoder from observations to z_V, and what is fitted once it is frozen."""

    observation: Literal["auto", "state", "frames", "both"] = Field(
        "auto", description="what the encoder sees; auto: everything that all episodes have"
    )
    num_dims: int = Field(
        16, ge=1, le=1024,
        description="learned dimensions, and most dimensions of z_V: what sensors say first, then what they do not",
    )  # fmt: skip
    stack: int = Field(3, ge=1, le=16, description="last frames seen at once (frames alone show no speeds)")
    hidden: int = Field(128, ge=8, le=4096, description="width of the hidden layers")
    num_steps: int = Field(300, ge=1, description="optimiser steps")
    num_groups: int = Field(2, ge=1, description="groups of segments a step, contrasted apart; divides by the workers")
    num_segments: int = Field(8, ge=1, description="segments a group, from different episodes where there are enough")
    segment_steps: int = Field(16, ge=2, description="observations a segment")
    learning_rate: float = Field(5e-3, gt=0, description="peak learning rate (warm-up, then cosine to zero)")
    decoder_steps: int = Field(600, ge=0, description="optimiser steps of the state decoder; 0 leaves it linear")
    latent_actions: LatentActionsConfig = Field(LatentActionsConfig(), description="latent actions")


class BricksConfig(Section):
    """Semantic clusters of episodes in latent space."""

    num_bricks: int = Field(0, ge=0, le=1000, description="clusters; 0 chooses the number with the best silhouette")
    features: tuple[Literal["mean", "std", "step", "range"], ...] = Field(
        ("std", "step"),
        min_length=1,
        description="what is pooled over an episode's latents, per dimension: mean, standard deviation, mean absolute "
        "step, range; without the mean, bricks tell how work was done rather than where",
    )
