"""Where a run lives, what it is seeded with, and what may be redone."""

from typing import Literal

from pydantic import Field

from phaseb.config.section import Section


class RunConfig(Section):
    """The run as a whole."""

    dir: str = Field("", description="run directory: a local path or the URI of any pyarrow filesystem; "
                     "empty means runs/<name of the config file>")  # fmt: skip
    seed: int = Field(0, ge=0, description="redraws everything: data, encoder, world model, trust, policies")
    on_change: Literal["refuse", "redo"] = Field(
        "refuse",
        description="when the run directory holds results of another config: refuse, or redo the stages that changed",
    )


class TrainingConfig(Section):
    """How every torch module is trained: the same for encoder, world model, trust networks and policies."""

    checkpoint_every_s: float = Field(20.0, gt=0, description="seconds between checkpoints of a training in progress")
    log_every: int = Field(50, ge=1, description="optimiser steps between rows of metrics.parquet")
    validate_every: int = Field(500, ge=1, description="optimiser steps between looks at held-out data")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of products in layers while training; bfloat16 pays on GPUs from some 512 units on"
    )
    compile: Literal["auto", "never", "always"] = Field(
        "auto", description="compile what a step repeats (torch.compile); auto: on GPUs where graphs is never"
    )
    graphs: Literal["auto", "never"] = Field(
        "auto", description="replay what a step launches as one CUDA graph; auto: on GPUs, where it can be"
    )
    torch_threads: int = Field(1, ge=1, description="torch threads a worker; more than its cores has been 100 x slower")


class ReportConfig(Section):
    """The page."""

    title: str = Field("phaseb", description="title of the report page")
    num_plotted: int = Field(40, ge=1, description="episodes drawn in the latent clouds")
    animation_episodes: int = Field(1, ge=0, description="evaluation episodes an arm that are animated")
