"""How much of a data set is held in memory at once, whatever its size."""

from pydantic import Field

from phaseb.config.section import Section


class MemoryConfig(Section):
    """Most episodes that a fit holds: of more, an even sample is drawn by `run.seed`. What only passes through
    (encoding, rollouts, scoring, the filling of the replay) goes through all of them all the same."""

    fit_episodes: int = Field(
        4096, ge=2, description="of each split: what bricks and the world model are fitted to, rollouts start from and "
        "numbers are measured on",
    )  # fmt: skip
    encoder_episodes: int = Field(
        512, ge=2, description="of each split, with their frames: what the encoder is trained and measured on"
    )
    gate_episodes: int = Field(
        512, ge=2, description="of those for fits, what the gate learns from; it keeps several copies of each"
    )
