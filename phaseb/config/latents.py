"""Settings of the encoder, its standardisation, the state decoder and the latent actions."""

from typing import Literal

from pydantic import Field

from phaseb.config.section import Section


class ContrastWeights(Section):
    """Weights of the encoder's loss terms; the names are the keys of the dictionary that the loss returns."""

    contrast: float = Field(1.0, ge=0, description="InfoNCE against every other observation of the group of segments")
    contrast_within: float = Field(1.0, ge=0, description="InfoNCE against observations of the same episode only")
    spread: float = Field(1.0, ge=0, description="penalty on latent dimensions that repeat each other")


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
    hidden: int = Field(64, ge=8, le=1024, description="width of the inverse, forward and prior networks")
    num_steps: int = Field(1500, ge=1, description="optimiser steps")
    batch: int = Field(256, ge=2, description="transitions a step")
    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate (cosine to zero)")
    bottleneck: float = Field(0.02, ge=0, description="weight of KL(code || prior): higher lets less through")
    free_bottleneck: float = Field(
        0.0005, ge=0,
        description="the same where no episode has actions: codes then stand for all that a latent does not tell",
    )  # fmt: skip
    neighbours: int = Field(5, ge=1, description="near training transitions, one of which a rollout's codes follow")
    follow_steps: float = Field(4.0, ge=1, description="steps of one training episode that are followed, on average")


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
    frame_channels: int = Field(16, ge=4, le=512, description="channels of the frame network")
    frame_features: int = Field(16, ge=4, le=4096, description="points of interest that are located in a frame")
    num_steps: int = Field(300, ge=1, description="optimiser steps")
    num_groups: int = Field(2, ge=1, description="groups of segments a step, contrasted apart; divides by the workers")
    num_segments: int = Field(8, ge=1, description="segments a group, from different episodes where there are enough")
    segment_steps: int = Field(16, ge=2, description="observations a segment")
    horizons: tuple[int, ...] = Field((1, 2, 4, 8), description="steps ahead that the encoder must tell apart")
    loss_weights: ContrastWeights = Field(ContrastWeights(), description="weights of the loss terms")
    learning_rate: float = Field(5e-3, gt=0, description="peak learning rate (warm-up, then cosine to zero)")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW weight decay")
    gradient_clip: float = Field(10.0, gt=0, description="largest norm of the gradient")
    state_noise: float = Field(0.02, ge=0, description="noise added to states in training, in standard deviations")
    frame_dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of training observations whose frames are hidden, where a state is seen too: what both "
        "show is then told by the sensor that shows it best",
    )
    std_floor: float = Field(
        1e-3, gt=0, description="least standard deviation of a latent, relative to the mean of all"
    )
    decoder_hidden: int = Field(128, ge=8, le=4096, description="width of the state decoder")
    decoder_steps: int = Field(600, ge=0, description="optimiser steps of the state decoder; 0 leaves it linear")
    log_every: int = Field(10, ge=1, description="steps between two rows of metrics")
    latent_actions: LatentActionsConfig = Field(LatentActionsConfig(), description="latent actions")
