"""The other generators: world models made only so that the gate has seen bad rollouts not its own model's."""

from pydantic import Field

from phaseb.config.section import Section


class NegativesConfig(Section):
    """A model trained as the founding report trained its own (ten teacher-forced steps, mean squared error, no clamp),
    and its early checkpoints."""

    num_steps: int = Field(600, ge=1, description="optimiser steps of the report's model")
    snapshots: tuple[float, ...] = Field(
        (0.05, 0.2, 0.5, 1.0), min_length=1, description="shares of its training at which rollouts are made"
    )
    num_episodes: int = Field(240, ge=2, description="rollouts in all, spread over the snapshots")
