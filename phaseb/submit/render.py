"""What would be applied elsewhere: a RayJob for Kubernetes, a batch script for Slurm, from the files in cluster/."""

from pathlib import Path

from phaseb.config.job import JobConfig
from phaseb.config.root import Config
from phaseb.errors import ConfigError


def render_job(target: str, job: JobConfig, config: Config, study: Path | None) -> str:
    raise ConfigError(f"--render {target}: not there yet")
