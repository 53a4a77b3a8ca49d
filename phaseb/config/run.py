"""Settings of a run as a whole: where it lives, how modules are trained and what it may use."""

from typing import Literal, Self

from pydantic import Field, model_validator

from phaseb.config.paths import PathText
from phaseb.config.section import Section


class RunConfig(Section):
    """The run as a whole."""

    dir: PathText = Field(
        "",
        description="run directory: a local path or the URI of any pyarrow filesystem; "
        "empty means runs/<name of the config file>",
    )
    seed: int = Field(0, ge=0, description="seed of everything random: data, encoder, generators, gate, policies")
    on_change: Literal["refuse", "redo"] = Field(
        "refuse",
        description="when the run directory holds results of another config: refuse, or redo the stages that changed",
    )


class TrainingConfig(Section):
    """Training of all torch modules: encoder, generators, trust networks and policies."""

    checkpoint_every_s: float = Field(20.0, gt=0, description="seconds between checkpoints of a training in progress")
    log_every: int = Field(50, ge=1, description="optimiser steps between rows of metrics.parquet")
    validate_every: int = Field(500, ge=1, description="optimiser steps between two validations")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="precision of matrix products in training; bfloat16 pays on GPUs from about 512 units"
    )
    compile: Literal["auto", "never", "always"] = Field(
        "auto", description="compile a step with torch.compile; auto: on GPUs if graphs=never"
    )
    graphs: Literal["auto", "never"] = Field(
        "auto", description="replay a training step as one CUDA graph; auto: on GPUs, where possible"
    )


class ReportConfig(Section):
    """The report page."""

    title: str = Field("phaseb", description="title of the report page")


class ResourcesConfig(Section):
    """Workers, processors, memory, and the cluster to run on."""

    address: str | None = Field(
        None,
        description="Ray cluster to join (host:port, or auto); local: start Ray here; null: RAY_ADDRESS, the "
        "submitted job's cluster, else local",
    )
    num_cpus: int | None = Field(None, ge=1, description="CPUs of a Ray started here; null: all of the machine")
    num_gpus: int | None = Field(None, ge=0, description="GPUs of a Ray started here; null: all of the machine")
    num_workers: int = Field(
        0, ge=0, le=4096, description="Ray Train workers of a training (data parallel); 0: the stage's process trains"
    )
    min_workers: int | None = Field(None, ge=1, description="elastic training: fewest workers")
    cpus_per_worker: float = Field(1.0, gt=0, description="CPUs a training worker reserves; torch uses as many threads")
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs a training worker reserves; may be a fraction below 1")
    accelerator_type: str | None = Field(None, description="kind of GPU the workers need, by Ray's name (H100, A10G…)")
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK", description="placement of training workers on the nodes"
    )
    num_tasks: int = Field(
        2,
        ge=1,
        le=65536,
        description="parallel stages, and parallel tasks of a stage; changes the speed only",
    )
    cpus_per_task: float = Field(
        1.0, gt=0, description="CPUs a task or rollout actor reserves; torch trains with as many threads"
    )
    gpus_per_actor: float = Field(
        0.0, ge=0, le=1, description="GPUs of a rollout actor; with a fraction, several share one"
    )
    object_store_gb: float = Field(0.5, ge=0.1, description="shared memory for objects of a Ray started here, GB")
    wait_s: float = Field(0.0, ge=0, description="longest wait for missing resources, s")
    max_failures: int = Field(3, ge=-1, description="restarts of a training run after lost workers; -1: no limit")
    collective_timeout_s: float = Field(60.0, gt=0, description="a collective that hangs this long counts as failed, s")
    dashboard: bool = Field(False, description="start Ray's dashboard (loopback only) with a Ray started here")

    @model_validator(mode="after")
    def _elastic_range_and_gpu_shares(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers ({self.min_workers}) is above num_workers ({self.num_workers})")
        if self.gpus_per_worker > 1 and self.gpus_per_worker != int(self.gpus_per_worker):
            raise ValueError(f"gpus_per_worker above 1 must be whole, not {self.gpus_per_worker}")
        if self.gpus_per_worker and not self.num_workers:
            raise ValueError("gpus_per_worker is set, so num_workers must be above 0")
        if self.accelerator_type and not self.gpus_per_worker:
            raise ValueError("accelerator_type is set, so gpus_per_worker must be above 0")
        return self


class ReuseConfig(Section):
    """Run directories whose trained parts are reused. Empty: train them in this run.

    Generators and gate were trained on its encoder's latents and on scaled actions: both must be this run's too.
    """

    encoder: PathText = Field("", description="run directory whose encoder encodes this run's episodes")
    dynamics: PathText = Field("", description="run directory whose generators are taken over; needs the same encoder")
    trust: PathText = Field(
        "", description="run directory whose gate weighs this run's rollouts; needs the same encoder"
    )
