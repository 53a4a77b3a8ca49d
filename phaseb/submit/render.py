"""What would be applied elsewhere: a RayJob for Kubernetes, a batch script for Slurm, from the files in cluster/."""

import re
import shlex
from typing import Any

import yaml

from phaseb.config.cluster import ClusterShape, JobConfig
from phaseb.config.load import dump_config
from phaseb.config.root import Config
from phaseb.errors import ConfigError
from phaseb.submit.templates import template_folder

MOUNT = "/etc/phaseb"
JOB_MARK = "# -- the job --"


def render_job(target: str, job: JobConfig, config: Config, study: str | None) -> str:
    """The text to apply: `kubectl apply -f -` for `kuberay`, `sbatch` for `slurm`.

    Raises:
        ConfigError: where the run directory would be a folder inside a container or a node.
    """
    if "://" not in config.run.dir and not config.run.dir.startswith("/"):
        where = f"/runs/{job.name}" if target == "kuberay" else f"/shared/{job.name}"
        raise ConfigError(
            f"run.dir = {config.run.dir!r} is relative; a cluster needs a place that all its nodes write: `storage:` "
            f"in the job file, or run.dir={where}"
        )
    files = {"config.yaml": dump_config(config)}
    if study:
        files["study.yaml"] = study
    return (_kuberay if target == "kuberay" else _slurm)(job, files)


def command(job: JobConfig, folder: str) -> list[str]:
    """The job's command, where its config and study lie in a folder."""
    if job.job == "tune":
        return ["phaseb", "tune", f"{folder}/study.yaml", "--auto-resume"]
    return ["phaseb", job.job, "--config", f"{folder}/config.yaml"]


def _kuberay(job: JobConfig, files: dict[str, str]) -> str:
    tree = yaml.safe_load((template_folder("cluster") / "kuberay" / "rayjob.yaml").read_text(encoding="utf-8"))
    namespace = tree["metadata"]["namespace"]
    tree["metadata"]["name"] = f"phaseb-{job.name}"
    spec, shape = tree["spec"], job.cluster
    spec["entrypoint"] = shlex.join(command(job, MOUNT))
    spec["backoffLimit"] = job.retries
    if job.driver_cpus:
        spec["entrypointNumCpus"] = job.driver_cpus
    cluster = spec["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    head["volumes"].append({"name": "job", "configMap": {"name": f"phaseb-{job.name}"}})
    head["containers"][0]["volumeMounts"].append({"name": "job", "mountPath": MOUNT, "readOnly": True})
    group = next(g for g in cluster["workerGroupSpecs"] if g["groupName"] == ("gpu" if shape.gpus_per_node else "cpu"))
    cluster["workerGroupSpecs"] = [_sized(group, shape)]
    for pod in (head, group["template"]["spec"], spec["submitterPodTemplate"]["spec"]):
        _finish(pod, job)
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"phaseb-{job.name}", "namespace": namespace},
        "data": files,
    }
    return yaml.dump_all([config_map, tree], Dumper=_Readable, sort_keys=False, width=120)


class _Readable(yaml.SafeDumper):
    """Writes text of several lines as a block, so that a person can read the config in it."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _block)


def _sized(group: dict[str, Any], shape: ClusterShape) -> dict[str, Any]:
    group.update(replicas=shape.min_nodes, minReplicas=shape.min_nodes, maxReplicas=shape.nodes)
    amounts: dict[str, Any] = {"cpu": str(shape.cpus_per_node), "memory": f"{shape.memory_gb_per_node:g}Gi"}
    if shape.gpus_per_node:
        amounts["nvidia.com/gpu"] = shape.gpus_per_node
    spec = group["template"]["spec"]
    spec["containers"][0]["resources"] = {"requests": amounts, "limits": dict(amounts)}
    shared = next(v for v in spec["volumes"] if v["name"] == "shm")
    shared["emptyDir"]["sizeLimit"] = f"{max(1, int(shape.memory_gb_per_node // 4))}Gi"
    return group


def _finish(pod: dict[str, Any], job: JobConfig) -> None:
    container = pod["containers"][0]
    container["image"] = job.cluster.image
    environment = container.setdefault("env", [])
    environment += [{"name": name, "value": value} for name, value in job.environment.items()]
    for volume in pod.get("volumes", []):
        if "persistentVolumeClaim" in volume:
            volume["persistentVolumeClaim"]["claimName"] = job.cluster.storage_claim


def _slurm(job: JobConfig, files: dict[str, str]) -> str:
    text = (template_folder("cluster") / "slurm" / "phaseb.sbatch").read_text(encoding="utf-8")
    shape = job.cluster
    options = {
        "job-name": f"phaseb-{job.name}",
        "nodes": shape.nodes,
        "cpus-per-task": shape.cpus_per_node,
        "mem": f"{shape.memory_gb_per_node:g}G",
        "time": shape.time_limit,
    }
    for name, value in options.items():
        text = re.sub(rf"(?m)^#SBATCH --{name}=.*$", f"#SBATCH --{name}={value}", text)
    extra = [f"#SBATCH --partition={shape.partition}"] if shape.partition else []
    extra += [f"#SBATCH --gpus-per-node={shape.gpus_per_node}"] if shape.gpus_per_node else []
    text = re.sub(r"(?m)^#SBATCH --exclusive$", "\n".join(["#SBATCH --exclusive", *extra]), text)
    text = re.sub(r"(?m)^# (One Ray cluster|or, from a job file).*\n", "", text)
    before, after = text.split(JOB_MARK)
    head, _, _ = before.rpartition("if [ ")
    return head + "\n".join([*_job_lines(job, files), JOB_MARK]) + after


def _job_lines(job: JobConfig, files: dict[str, str]) -> list[str]:
    """Shell lines that write the job's files beside the script's log and set its command and environment."""
    lines = [f'job_files="${{SLURM_SUBMIT_DIR:-$PWD}}/.phaseb-{job.name}-$SLURM_JOB_ID"', 'mkdir -p "$job_files"']
    for name, text in files.items():
        lines += [f"cat >\"$job_files/{name}\" <<'END_OF_FILE'", text.rstrip("\n"), "END_OF_FILE"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in job.environment.items()]
    words = [f'"{word}"' if word.startswith("$") else shlex.quote(word) for word in command(job, "$job_files")]
    return [*lines, f"command=({' '.join(words)})"]
