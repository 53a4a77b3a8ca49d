"""Settings of the flywheel: where new episodes come from, what makes a part train again, and when it stops."""

from pathlib import PurePath
from typing import Literal, Self

from pydantic import Field, model_validator

from phaseb.config.paths import PathText
from phaseb.config.section import Section


class DriftConfig(Section):
    """Tests for drift of the encoder, the generators and the gate.

    Each test asks whether new episodes fit worse than held-out ones of the time when the part was trained: one-sided,
    over episodes.
    """

    tolerance: float = Field(0.2, ge=0, description="smallest relative change that counts as drift")


class FlywheelConfig(Section):
    """Repeated runs: train, gate, promote or keep, collect."""

    source: Literal["environment", "folder"] = Field(
        "environment",
        description="new episodes: by the shipped policy in the environment, or files that appear in flywheel.folder",
    )
    folder: PathText = Field("", description="folder that is watched; its files are read by episodes.source")
    poll_s: float = Field(5.0, gt=0, description="seconds between two checks of the folder")
    wait_s: float | None = Field(None, ge=0, description="stop after this time without a new file, s; null: never")
    min_episodes: int = Field(1, ge=1, description="new episodes of the folder that start a generation")
    num_episodes: int = Field(20, ge=1, description="episodes that the shipped policy collects for a generation")
    exploration: float = Field(
        0.1, ge=0, le=2, description="standard deviation of the noise on its actions, in units of [-1, 1]"
    )
    choose: Literal["random", "recommended"] = Field(
        "random", description="starts of collected episodes: random, or those that the last generation recommends"
    )
    worth: Literal["none", "estimate", "leave_out"] = Field("estimate", description="worth.method of each generation")
    dev_fraction: float = Field(0.15, ge=0, lt=1, description="share of new episodes for choosing and promoting")
    test_fraction: float = Field(0.1, ge=0, lt=1, description="share of new episodes for the sealed test")
    max_generations: int = Field(4, ge=1, description="generations, the first included")
    max_real_episodes: int | None = Field(
        None, ge=1, description="training, dev and test episodes and those that decisions spend, all together"
    )
    max_hours: float | None = Field(None, gt=0, description="hours of work, over all starts of the command")
    patience: int = Field(2, ge=1, description="generations without a promotion before the flywheel stops")
    drift: DriftConfig = Field(DriftConfig(), description="when parts are trained again")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.source == "folder" and not PurePath(self.folder).name:
            raise ValueError("flywheel.source=folder needs flywheel.folder")
        if self.dev_fraction + self.test_fraction >= 1:
            raise ValueError("dev_fraction + test_fraction must leave something to train on (be below 1)")
        return self
