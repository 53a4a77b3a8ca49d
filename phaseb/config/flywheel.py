"""Settings of the flywheel: where new episodes come from, what makes a part train again, and when it stops."""

from pathlib import PurePath
from typing import Literal, Self

from pydantic import Field, model_validator

from phaseb.config.paths import PathText
from phaseb.config.section import Section


class DriftConfig(Section):
    """When an encoder, world model or gate no longer fits what is recorded now.

    Each test asks whether new episodes fit worse than held-out ones of the time when the part was trained: one-sided,
    over episodes.
    """

    confidence: float = Field(0.95, gt=0.5, lt=1, description="of all tests of a generation together (Bonferroni)")
    tolerance: float = Field(
        0.2, ge=0, description="how much worse, as a share, must be shown at least: no difference is too small to prove"
    )


class FlywheelConfig(Section):
    """Generations of train, gate, promote or keep, collect, and again."""

    source: Literal["environment", "folder"] = Field(
        "environment",
        description="new episodes: by the shipped policy in the environment, or files that appear in flywheel.folder",
    )
    folder: PathText = Field("", description="folder that is watched; its files are read as episodes.source says")
    poll_s: float = Field(5.0, gt=0, description="seconds between two looks at the folder")
    wait_s: float | None = Field(
        None, ge=0, description="stop when no new file has come for so long, s; null: wait for ever"
    )
    min_episodes: int = Field(1, ge=1, description="new episodes that begin a generation, of the folder")
    num_episodes: int = Field(20, ge=1, description="episodes that the shipped policy collects for a generation")
    exploration: float = Field(
        0.1, ge=0, le=2, description="standard deviation of noise on its actions, of which [-1, 1] is the range"
    )
    choose: Literal["random", "recommended"] = Field(
        "random", description="which starts are collected: as they come, or those that the last generation recommends"
    )
    candidates: int = Field(4, ge=1, description="starts looked at for each one collected, where they are chosen")
    worth: Literal["none", "estimate", "leave_out"] = Field(
        "estimate", description="what each generation asks of its bricks, see worth.method"
    )
    dev_fraction: float = Field(0.15, ge=0, lt=1, description="share of new episodes for choosing and promoting")
    test_fraction: float = Field(0.1, ge=0, lt=1, description="share of new episodes for the sealed test")
    max_generations: int = Field(4, ge=1, description="generations, the first included")
    max_real_episodes: int | None = Field(
        None, ge=1, description="training, dev and test episodes and those that decisions spend, all together"
    )
    max_hours: float | None = Field(None, gt=0, description="hours of work, over all starts of the command")
    patience: int = Field(2, ge=1, description="generations in a row that may bring no gain")
    max_failures: int = Field(2, ge=1, description="generations in a row that may fail")
    drift: DriftConfig = Field(DriftConfig(), description="when parts are trained again")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.source == "folder" and not PurePath(self.folder).name:
            raise ValueError("flywheel.source=folder needs flywheel.folder")
        if self.dev_fraction + self.test_fraction >= 1:
            raise ValueError("dev_fraction + test_fraction must leave something to train on (be below 1)")
        return self
