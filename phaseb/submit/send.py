"""Check a job here, ship this very code and one resolved config, follow it to its end."""

import os
import secrets
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

import phaseb
from phaseb.config.cluster import JobConfig, job_config, load_job
from phaseb.config.load import dump_config, read_yaml
from phaseb.config.root import Config
from phaseb.errors import ConfigError
from phaseb.submit.client import Client, is_loopback
from phaseb.submit.render import render_job
from phaseb.submit.templates import FOLDERS
from phaseb.tuning.validation import load_study

NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def submit(path: str, address: str | None = None, render: str | None = None, words: Sequence[str] = ()) -> int:
    """Send the job of a job file to a running cluster and follow it; returns its exit code.

    Args:
        path: the job file.
        address: of the cluster's job server, `http://127.0.0.1:8265` by default.
        render: `kuberay` or `slurm`: print what would be applied there instead, and send nothing.
        words: `key.path=value` settings that win over the job file's.

    Raises:
        ConfigError: where the job file, its config or its study is wrong; nothing was sent.
        ClusterError: where the cluster cannot be reached or refuses the token.
    """
    job, config = prepare(path, words)
    if render:
        sys.stdout.write(render_job(render, job, config, study_text(job, path)))
        return 0
    client = Client(address)
    config = placed(config, client.address)
    with tempfile.TemporaryDirectory() as folder:
        request = package(job, config, study_text(job, path), Path(folder))
        job_id = client.submit(**request)
    sys.stderr.write(f"submitted {job_id} to {client.address}\n")
    return client.follow(job_id)


def prepare(path: str, words: Sequence[str] = ()) -> tuple[JobConfig, Config]:
    """Read and check a job file, the config it resolves to, and the study of a search."""
    job = load_job(path)
    if job.study:
        folder = Path(path).expanduser().parent
        study = folder / job.study
        base = load_study(study).study.config
        if base and not job.config:
            job = job.model_copy(update={"config": os.path.relpath(study.parent / base, folder)})
    return job, job_config(job, path, words)


def study_text(job: JobConfig, path: str) -> str | None:
    """The study of a search, on the config that is shipped beside it."""
    if not job.study:
        return None
    tree = read_yaml(Path(path).parent / job.study)
    name = tree.get("name") or Path(job.study).stem
    return yaml.safe_dump({**tree, "name": name, "config": "config.yaml"}, sort_keys=False)


def placed(config: Config, address: str) -> Config:
    """The config with a run directory that means the same there as here.

    Raises:
        ConfigError: where a relative path would end in a throw-away folder of another machine.
    """
    where = config.run.dir
    if "://" in where or os.path.isabs(where):
        return config
    if not is_loopback(address):
        raise ConfigError(
            f"run.dir = {where!r} is a folder of this machine; on a cluster give `storage:` in the job file or an "
            "absolute path or URI that all its nodes can write"
        )
    run = config.run.model_copy(update={"dir": os.path.abspath(where)})
    return config.model_copy(update={"run": run})


def package(job: JobConfig, config: Config, study: str | None, folder: Path) -> dict[str, Any]:
    """What Ray's job server is asked: entry point, this package's own files and the resolved config, nothing else."""
    code, work = folder / "code" / "phaseb", folder / "work"
    shutil.copytree(Path(phaseb.__file__).parent, code, ignore=NOT_SHIPPED)
    for side in FOLDERS:
        shutil.rmtree(code / "templates" / side, ignore_errors=True)  # there in an installed wheel; no use over there
    work.mkdir()
    (work / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    if study:
        (work / "study.yaml").write_text(study, encoding="utf-8")
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return {
        "entrypoint": entry_point(job),
        "submission_id": f"{job.name}-{stamp}-{secrets.token_hex(3)}",
        "runtime_env": {
            "py_modules": [str(code)],
            "working_dir": str(work),
            "env_vars": {"PYTHONUNBUFFERED": "1", "RAY_USAGE_STATS_ENABLED": "0", **job.environment},
        },
        "entrypoint_num_cpus": job.driver_cpus or None,
        "metadata": {"phaseb": phaseb.__version__, "job": job.job, "run_dir": config.run.dir},
    }


def entry_point(job: JobConfig, config: str = "config.yaml", study: str = "study.yaml") -> str:
    """The command that runs the job on the cluster; a failure that is not the user's is tried again."""
    words = ["tune", study, "--auto-resume"] if job.job == "tune" else [job.job, "--config", config]
    return shlex.join(["python", "-m", "phaseb.submit.retry_entrypoint", str(job.retries), *words])
