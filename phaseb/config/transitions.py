"""Settings of the short-range model that policies branch in: what one step does, of few transitions."""

from pydantic import Field

from phaseb.config.section import Section


class TransitionsConfig(Section):
    """Gaussian processes of one step: what jumps, how the latent moves, and what is paid for it."""

    kept: int = Field(700, ge=50, description="most transitions that a prediction is conditioned on")
    fitted: int = Field(250, ge=20, description="most transitions that length scales are found on")
    steps: int = Field(60, ge=1, description="optimiser steps of a fit")
    rare_share: float = Field(
        0.15, gt=0, le=1,
        description="share of all steps below which what happened is rare: its reward then counts as the worst of its "
        "kind wherever its examples do not say otherwise",
    )  # fmt: skip
    least_examples: int = Field(
        8, ge=2, description="with fewer examples of what happened, rollouts are cut before it"
    )
    num_directions: int = Field(3, ge=0, description="directions of the latent that frequent rewards point to; 0: none")
    direction_starts: int = Field(2, ge=1, description="searches for these directions, of which the likeliest counts")
    margin: float = Field(0.1, ge=0, description="share of its range by which a latent may leave what was seen")
