"""Where episodes come from, how many, and how they are split."""

from pathlib import PurePath
from typing import Self

from pydantic import Field, field_validator, model_validator

from phaseb.config.section import Section

COLLECTED = ("workcell", "gymnasium")
"""Sources that make their episodes by acting in an environment."""
IMPORTED = ("npz", "parquet")
"""Sources that read files."""


class EpisodesConfig(Section):
    """The real episodes of a run."""

    source: str = Field(
        "workcell",
        description="workcell (the built-in cell), gymnasium (collect in environment.id), a file format "
        f"({', '.join(IMPORTED)}) to read from episodes.path, or module:Class of your own source",
    )
    path: str = Field("", description="file, folder or storage URI that a file source reads")
    num_train: int = Field(50, ge=2, description="training episodes to collect; N of the learning curves counts all")
    num_dev: int = Field(50, ge=1, description="further episodes to collect for choosing and promoting")
    num_test: int = Field(200, ge=1, description="further episodes to collect for the sealed test")
    dev_fraction: float = Field(0.15, gt=0, lt=1, description="share of imported episodes for choosing and promoting")
    test_fraction: float = Field(0.25, gt=0, lt=1, description="share of imported episodes for the sealed test")
    max_bytes: int = Field(
        4 * 2**30, ge=2**10, description="most bytes that an imported file may unpack to; more is refused unread"
    )
    rows_per_shard: int = Field(64, ge=1, description="episodes in one Parquet shard: the unit of parallel work")

    @field_validator("source")
    @classmethod
    def _known(cls, source: str) -> str:
        module, colon, name = source.partition(":")
        own = bool(colon) and all(part.isidentifier() for part in [*module.split("."), name])
        if source not in COLLECTED + IMPORTED and not own:
            raise ValueError(f"is none of {', '.join(COLLECTED + IMPORTED)} nor module:Class")
        return source

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.source in IMPORTED and not PurePath(self.path).name:
            raise ValueError(f"source={self.source} needs episodes.path=FILE")
        if self.dev_fraction + self.test_fraction >= 1:
            raise ValueError("dev_fraction + test_fraction must leave something to train on (be below 1)")
        return self
