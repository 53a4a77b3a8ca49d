"""Settings of the data: the environment, the episodes, what they are worth and how many are held in memory."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from phaseb.config.paths import PathText
from phaseb.config.section import Section, is_plugin


class EnvironmentConfig(Section):
    """The environment in which policies are measured."""

    id: str = Field(
        "workcell",
        min_length=1,
        description="workcell (built in), none (policies are judged without physics), a Gymnasium id, or module:Class",
    )
    max_steps: int = Field(60, ge=1, le=100_000, description="Steps after which an episode is cut off")
    observation: Literal["both", "state", "frames"] = Field(
        "both", description="What the built-in cell shows: camera frames, a state vector, or both"
    )


COLLECTED = ("workcell", "gymnasium")
"""Sources that make their episodes by acting in an environment."""
SIDE_OF_SEVERAL = 64
"""Side that the frames of several cameras are resized to where no size is set, pixels."""
ENDINGS = {".npz": "npz", ".hdf5": "hdf5", ".h5": "hdf5", ".parquet": "parquet", ".mcap": "mcap"}
"""The format of a file by the ending of its name."""
IMPORTED = ("npz", "parquet", "minari", "hdf5", "lerobot", "mcap")
"""Sources that read files."""
MIXED = "mixed"
"""The source that takes from several others."""


class ColumnsConfig(Section):
    """Column names of imported data. Empty: the format's usual name."""

    observation: tuple[str, ...] = Field((), description="vectors to join into the state, in order ([a,b])")
    action: tuple[str, ...] = Field((), description="vectors to join into the action, in order ([a,b])")
    reward: str = Field("", description="reward of a step")
    terminal: str = Field("", description="1 if the task ended with the step")
    images: tuple[str, ...] = Field((), max_length=4, description="cameras whose frames are read, one to four ([a,b])")
    image_size: int = Field(
        0,
        ge=0,
        le=4096,
        description="side that frames are resized to, pixels; 0: the size of a single camera, 64 for several",
    )
    success: str = Field(
        "", description="1 once the attempt succeeded; source of good units, errors, MPL and error rate"
    )
    power_w: str = Field("", description="power drawn in a step, W; source of the energy")
    step_s: float = Field(0.0, ge=0, description="length of a step, s; 0: take it from the data, if they contain it")

    @field_validator("observation", "action", "images", mode="before")
    @classmethod
    def _one_or_more(cls, names: object) -> object:
        return (names,) if isinstance(names, str) and names else names or ()

    @property
    def frame_side(self) -> int:
        """Side that frames are resized to, pixels; 0 keeps their size."""
        return self.image_size or (SIDE_OF_SEVERAL if len(self.images) > 1 else 0)


class PartConfig(Section):
    """One source of a mixture."""

    source: str = Field(description=f"a file format ({', '.join(IMPORTED)}), or module:Class of your own")
    path: PathText = Field("", description="file, folder or storage URI that it reads")
    columns: ColumnsConfig = Field(default_factory=ColumnsConfig, description="what its columns mean")
    weight: float = Field(1.0, gt=0, description="its share of the episodes taken, relative to the others'")

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.source not in IMPORTED and not is_plugin(self.source):
            raise ValueError(f"source={self.source} is none of {', '.join(IMPORTED)} nor module:Class")
        if self.source in IMPORTED and not self.path:
            raise ValueError(f"source={self.source} needs a path")
        return self


class EpisodesConfig(Section):
    """The real episodes of a run."""

    source: str = Field(
        "workcell",
        description="workcell (the built-in cell), gymnasium (collect in environment.id), a file format "
        f"({', '.join(IMPORTED)}) to read from episodes.path, mixed (several, see episodes.parts), or module:Class of "
        "your own source",
    )
    policy: str = Field(
        "random",
        description="policy that collects with source=gymnasium: random, or module:Class, created with the environment",
    )
    parts: tuple[PartConfig, ...] = Field((), description="sources of source=mixed, each {source, path, weight}")
    path: PathText = Field("", description="file, folder or storage URI that a file source reads")
    columns: ColumnsConfig = Field(default_factory=ColumnsConfig, description="what imported columns mean")
    control_hz: float | None = Field(
        None,
        gt=0,
        description="steps of control a second, at most the recorded rate of imported episodes; several rows are then "
        "one step. null: every recorded row is a step",
    )
    num_train: int = Field(50, ge=2, description="training episodes to collect; N of the learning curves counts all")
    num_dev: int = Field(50, ge=1, description="further episodes to collect for choosing and promoting")
    num_test: int = Field(200, ge=1, description="further episodes to collect for the sealed test")
    dev_fraction: float = Field(
        0.15, gt=0, lt=1, description="largest share of imported episodes for choosing and promoting"
    )
    test_fraction: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="largest share of imported episodes for the sealed test; of few long episodes fewer are held out",
    )
    max_bytes: int = Field(
        4 * 2**30,
        ge=2**10,
        description="most bytes that an NPZ or Parquet file, or one episode of other formats, may unpack to",
    )
    rows_per_shard: int = Field(64, ge=1, description="episodes in one Parquet shard: the unit of parallel work")

    @field_validator("source")
    @classmethod
    def _known(cls, source: str) -> str:
        known = (*COLLECTED, *IMPORTED, MIXED)
        if source not in known and not is_plugin(source):
            raise ValueError(f"is none of {', '.join(known)} nor module:Class")
        return source

    @field_validator("policy")
    @classmethod
    def _actor(cls, policy: str) -> str:
        if policy != "random" and not is_plugin(policy):
            raise ValueError("is neither random nor module:Class")
        return policy

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.source in IMPORTED and not self.path:
            raise ValueError(f"source={self.source} needs episodes.path=FILE")
        if self.source in COLLECTED and self.control_hz is not None:
            raise ValueError(f"control_hz is for recorded episodes, source={self.source} makes its own: leave it out")
        if (self.source == MIXED) != bool(self.parts):
            raise ValueError("source=mixed goes with episodes.parts=[{source: …, path: …, weight: …}, …]")
        if self.dev_fraction + self.test_fraction >= 1:
            raise ValueError("dev_fraction + test_fraction must leave something to train on (be below 1)")
        return self


class ValuationConfig(Section):
    """Prices, in $: they turn measured economics into net value an hour."""

    price_per_unit: float = Field(1.0, ge=0, description="$ earned by a good unit")
    cost_per_error: float = Field(1.0, ge=0, description="$ lost by an error")
    price_per_kwh: float = Field(0.15, ge=0, description="$ paid for a kilowatt-hour of energy")


class MemoryConfig(Section):
    """Largest number of episodes in memory for a fit. `run.seed` draws an even sample of more.

    Encoding, rollouts, scoring and the filling of the replay process all episodes, a shard at a time.
    """

    fit_episodes: int = Field(
        4096,
        ge=2,
        description="episodes of each split for fits, for starts of rollouts and for measurements",
    )
    encoder_episodes: int = Field(
        512, ge=2, description="episodes of each split, with frames, for training and measuring the encoder"
    )
    gate_episodes: int = Field(
        512, ge=2, description="episodes of fit_episodes that the gate learns from; it keeps several copies of each"
    )
