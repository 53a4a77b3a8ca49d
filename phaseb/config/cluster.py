"""A job file (`jobs/*.yaml`): what to send to a cluster, and how it is to be run there."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from phaseb.config.load import load_config, nearest, read_yaml
from phaseb.config.paths import PathText
from phaseb.config.registry import JOBS
from phaseb.config.root import Config
from phaseb.config.section import Section
from phaseb.errors import ConfigError

SectionT = TypeVar("SectionT", bound=Section)
SUBMITTABLE = (*JOBS, "tune")
SECRET_WORDS = ("token", "secret", "password", "passwd", "api_key", "apikey", "access_key", "credential")


class ClusterShape(Section):
    """Size of the cluster that `--render` writes."""

    nodes: int = Field(1, ge=1, le=10_000, description="worker nodes")
    min_nodes: int = Field(0, ge=0, description="fewest worker nodes that autoscaling keeps")
    cpus_per_node: int = Field(4, ge=1, description="CPUs of a worker node")
    gpus_per_node: int = Field(0, ge=0, description="GPUs of a worker node")
    memory_gb_per_node: float = Field(16.0, ge=2, description="memory of a worker node, GB")
    image: str = Field("phaseb:0.1.0", description="container image with this version of phaseb")
    storage_claim: str = Field("phaseb-runs", description="Kubernetes volume claim that holds the run directories")
    partition: str | None = Field(None, description="Slurm partition")
    time_limit: str = Field("24:00:00", pattern=r"^(\d+-)?\d{1,3}:\d{2}:\d{2}$", description="Slurm time limit, H:M:S")

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.min_nodes > self.nodes:
            raise ValueError(f"min_nodes ({self.min_nodes}) is above nodes ({self.nodes})")
        return self


class JobConfig(Section):
    """One job, its config, and what to do after a failure."""

    name: str = Field(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$", description="lower-case letters, digits, hyphens")
    job: str = Field("run", description="a job of the command line, or tune")
    config: PathText | None = Field(
        None, description="config file, relative to the job file; null: the schema's defaults"
    )
    study: PathText | None = Field(None, description="study file of a tune job, relative to the job file")
    overrides: dict[str, Any] = Field({}, description="dotted path: value, laid over the config")
    resources: dict[str, Any] = Field({}, description="settings of the section resources, laid over the config's")
    storage: PathText | None = Field(None, description="where all nodes can write: run.dir becomes <storage>/<name>")
    retries: int = Field(0, ge=0, le=100, description="starts after a failure that is not the user's; a run resumes")
    environment: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = Field(
        {}, description="environment variables of the job; never secrets, which belong to the cluster"
    )
    driver_cpus: float = Field(0.0, ge=0, description="CPUs the job's own process reserves, beside its workers")
    cluster: ClusterShape = Field(ClusterShape(), description="the cluster to render")

    @field_validator("job")
    @classmethod
    def _known(cls, job: str) -> str:
        if job not in SUBMITTABLE:
            raise ValueError(f"no such job{nearest(job, SUBMITTABLE)}; there are {', '.join(SUBMITTABLE)}")
        return job

    @field_validator("environment")
    @classmethod
    def _no_secrets(cls, environment: dict[str, str]) -> dict[str, str]:
        secret = [name for name in environment if any(word in name.lower() for word in SECRET_WORDS)]
        if secret:
            raise ValueError(
                f"{', '.join(secret)} looks like a secret, and a job's environment is shown on the dashboard; "
                "set it on the cluster instead (a Kubernetes Secret, an instance role)"
            )
        return environment

    @model_validator(mode="after")
    def _study_of_a_search(self) -> Self:
        if (self.job == "tune") != (self.study is not None):
            raise ValueError("job: tune and study: FILE go together")
        return self


def load_job(path: str | Path) -> JobConfig:
    """Read and check a job file.

    Raises:
        ConfigError: naming every fault at once, each with its path and value.
    """
    return check_file(JobConfig, path)


def job_config(job: JobConfig, path: str | Path, words: Sequence[str] = ()) -> Config:
    """What the job runs with: its config file, its overrides, its resources, its shared storage, then the words."""
    folder = Path(path).parent
    # JSON is YAML, so every value survives the way through a word of the command line.
    settings = [f"{name}={json.dumps(value)}" for name, value in job.overrides.items()]
    settings += [f"resources.{name}={json.dumps(value)}" for name, value in job.resources.items()]
    if job.storage:
        settings.append(f"run.dir={job.storage.rstrip('/')}/{job.name}")
    return load_config(folder.expanduser() / job.config if job.config else None, [*settings, *words])


def check_file(model: type[SectionT], path: str | Path) -> SectionT:
    """A YAML file checked against a schema, with all errors at once, each with file, path, value and nearest name."""
    try:
        return model.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(fault, path, model) for fault in error.errors())) from error


def _explain(fault: Any, path: str | Path, model: type[Section]) -> str:
    parts = [str(part) for part in fault["loc"]]
    where = f"{path}: {'.'.join(parts)}" if parts else str(path)
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        names = list(model.model_fields) if len(parts) == 1 else []
        return f"{path}: unknown key {'.'.join(parts)}{nearest(parts[-1], names)}"
    if fault["type"] == "missing":
        return f"{where} is missing"
    shown = f" = {fault['input']!r}" if parts and not isinstance(fault["input"], dict) else ""
    return f"{where}{shown}: {message}"
