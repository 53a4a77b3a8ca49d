"""Every file under cluster/ and jobs/ is checked by what will read it, and is safe by default."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from phaseb.cli.main import main
from phaseb.config.cluster import job_config, load_job
from phaseb.config.load import load_config

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "cluster/kuberay"
KUBERNETES = "1.33"
RAY_VERSION = "2.60.0"
CORE = ["storage.yaml", "redis.yaml", "networkpolicy.yaml"]
TEXT = [p for p in (ROOT / "cluster").rglob("*") if p.is_file()]

# What KubeRay 1.5's resources take, of what is used here: a misspelt key would be dropped by the API server in silence.
POD_GROUP = {
    "type": "object",
    "additionalProperties": False,
    "required": ["template", "rayStartParams"],
    "properties": {
        "serviceType": {"enum": ["ClusterIP"]},
        "template": {"type": "object"},
        "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
WORKERS = copy.deepcopy(POD_GROUP)
WORKERS["required"] += ["groupName", "replicas", "minReplicas", "maxReplicas"]
WORKERS["properties"] |= {"groupName": {"type": "string"}} | {
    name: {"type": "integer", "minimum": 0} for name in ("replicas", "minReplicas", "maxReplicas")
}
CLUSTER_SPEC = {
    "type": "object",
    "additionalProperties": False,
    "required": ["rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"],
    "properties": {
        "rayVersion": {"const": RAY_VERSION},
        "authOptions": {"const": {"mode": "token"}},
        "enableInTreeAutoscaling": {"type": "boolean"},
        "autoscalerOptions": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "idleTimeoutSeconds": {"type": "integer"},
                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
            },
        },
        "gcsFaultToleranceOptions": {
            "type": "object",
            "additionalProperties": False,
            "required": ["redisAddress"],
            "properties": {
                "redisAddress": {"type": "string"},
                "redisPassword": {"type": "object", "required": ["valueFrom"]},
            },
        },
        "headGroupSpec": POD_GROUP,
        "workerGroupSpecs": {"type": "array", "items": WORKERS, "minItems": 1},
    },
}
JOB_SPEC = {
    "type": "object",
    "additionalProperties": False,
    "required": ["entrypoint", "rayClusterSpec"],
    "properties": {
        "entrypoint": {"type": "string", "minLength": 1},
        "submissionMode": {"enum": ["K8sJobMode"]},
        "backoffLimit": {"type": "integer"},
        "shutdownAfterJobFinishes": {"const": True},
        "ttlSecondsAfterFinished": {"type": "integer"},
        "entrypointNumCpus": {"type": "number"},
        "submitterPodTemplate": {"type": "object"},
        "rayClusterSpec": CLUSTER_SPEC,
    },
}


def documents(text: str) -> list[dict]:
    return list(yaml.safe_load_all(text))


def rendered(capsys, target: str, *words: str, job: str = "jobs/pipeline.yaml") -> str:
    assert main(["submit", str(ROOT / job), "--render", target, "run.dir=/runs/one", *words]) == 0
    return capsys.readouterr().out


def ray_parts(document: dict) -> tuple[dict, list[dict]]:
    """The cluster's spec and the pod templates of a RayCluster or a RayJob."""
    spec = document["spec"]
    templates = [spec["submitterPodTemplate"]] if document["kind"] == "RayJob" else []
    cluster = spec["rayClusterSpec"] if document["kind"] == "RayJob" else spec
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return cluster, [group["template"] for group in groups] + templates


def check_ray_document(document: dict) -> None:
    """The envelope, every pod template by the Kubernetes schema, and the cluster by Ray's own autoscaler."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    assert document["apiVersion"] == "ray.io/v1"
    jsonschema.validate(document["spec"], JOB_SPEC if document["kind"] == "RayJob" else CLUSTER_SPEC)
    cluster, templates = ray_parts(document)
    for template in templates:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x", **template["metadata"]},
            "spec": template["spec"],
        }
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    seen = _derive_autoscaling_config_from_ray_cr({"metadata": document["metadata"], "spec": cluster})
    for group in cluster["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        resources = seen["available_node_types"][group["groupName"]]["resources"]
        assert resources["CPU"] == int(limits["cpu"])
        assert resources.get("GPU", 0) == limits.get("nvidia.com/gpu", 0)
    assert seen["available_node_types"][seen["head_node_type"]]["resources"]["CPU"] == 0


def check_pod_is_unprivileged(pod: dict) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert re.search(r":[\w.-]*\d[\w.-]*$", container["image"]), container["image"]  # a version, never latest
        assert "limits" in container["resources"]


@pytest.mark.parametrize("name", CORE)
def test_core_objects_are_valid_kubernetes(name):
    for document in documents((KUBERAY / name).read_text()):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        if document["kind"] == "StatefulSet":
            check_pod_is_unprivileged(document["spec"]["template"]["spec"])
        with pytest.raises(kubernetes_validate.ValidationError):  # the validator does look
            kubernetes_validate.validate({**document, "specc": {}}, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_ray_resources_are_valid_and_closed(name):
    [document] = documents((KUBERAY / name).read_text())
    check_ray_document(document)
    for template in ray_parts(document)[1]:
        check_pod_is_unprivileged(template["spec"])
        assert template["metadata"]["labels"]["app"] == "phaseb"  # what the network policy lets through
    wrong = copy.deepcopy(document)
    ray_parts(wrong)[0]["headGroupSpec"]["rayStartParam"] = {}
    with pytest.raises(jsonschema.ValidationError):
        check_ray_document(wrong)


def test_the_network_policy_lets_nobody_from_elsewhere_in():
    of_ray, of_redis = documents((KUBERAY / "networkpolicy.yaml").read_text())
    for policy in (of_ray, of_redis):
        assert policy["spec"]["policyTypes"][0] == "Ingress"
        for rule in policy["spec"]["ingress"]:
            assert rule["from"], "an empty from lets everyone in"
            assert all(peer.get("podSelector") or peer.get("namespaceSelector") for peer in rule["from"])
    assert of_ray["spec"]["podSelector"] == {"matchLabels": {"app": "phaseb"}}


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_launcher_files_pass_rays_own_schema(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster/launcher" / name).read_text())
    schema = Path(ray.__file__).parent / "autoscaler/ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(Exception, match="bogus"):
        validate_config(prepare_config({**copy.deepcopy(config), "bogus": 1}))
    for command in (config["head_start_ray_commands"][1], config["worker_start_ray_commands"][1]):
        assert "RAY_AUTH_MODE=token" in command
        assert "--disable-usage-stats" in command
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][1]
    assert "0.0.0.0/0" not in json.dumps(config)
    spot = [t for n, t in config["available_node_types"].items() if n != config["head_node_type"]]
    assert all("spot" in json.dumps(t).lower() for t in spot)


@pytest.mark.parametrize("script", [p for p in TEXT if p.suffix in (".sh", ".sbatch")], ids=lambda p: p.name)
def test_scripts_pass_shellcheck(script):
    assert_shellcheck(script)


def assert_shellcheck(script: Path) -> None:
    tool = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([tool, "--severity=style", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_one_ray_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [wanted] = [d for d in project["dependencies"] if d.startswith("ray[")]
    assert wanted.endswith(">=2.60,<2.61")
    for path in TEXT:
        text = path.read_text()
        for found in re.findall(r"(?i)(?:rayversion|ray_version|ray\[[\w,]*\])\W{0,4}(\d+\.\d+\.\d+)", text):
            assert found == RAY_VERSION, path
        for found in re.findall(r"phaseb[:-](\d+\.\d+\.\d+)", text):
            assert found == project["version"], path


def test_the_image_is_pinned_and_not_run_by_root():
    lines = (ROOT / "cluster/image/Dockerfile").read_text().splitlines()
    base = next(line for line in lines if line.startswith("FROM"))
    assert re.fullmatch(r"FROM python:3\.1[123]\.\d+-slim-\w+", base)
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users == ["1000"]
    assert lines.index("USER 1000") > max(i for i, line in enumerate(lines) if line.startswith("RUN"))
    assert "ARG RAY_VERSION=" + RAY_VERSION in lines


def test_everything_in_the_image_has_one_version_that_the_project_allows():
    lines = (ROOT / "cluster/image/constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in map(Requirement, project["dependencies"]):
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), wanted
    assert pinned["ray"] == RAY_VERSION
    lines = (ROOT / "cluster/image/Dockerfile").read_text().replace("\\\n", " ").splitlines()
    installs = [part for line in lines for part in line.split("&&") if "pip install" in part]
    assert len(installs) == 3
    assert all("--constraint /tmp/constraints.txt" in command for command in installs)


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_job_file_resolves(path):
    job = load_job(path)
    job_config(job, path)
    assert job.name == path.stem


def test_a_rendered_rayjob_is_valid_and_carries_the_whole_config(capsys, tmp_path):
    config_map, job = documents(rendered(capsys, "kuberay", "policy.num_steps=7"))
    kubernetes_validate.validate(config_map, KUBERNETES, strict=True)
    check_ray_document(job)
    (tmp_path / "config.yaml").write_text(config_map["data"]["config.yaml"])
    words = ["run.dir=/runs/one", "policy.num_steps=7", "resources.wait_s=300"]
    assert load_config(tmp_path / "config.yaml") == load_config(ROOT / "configs/dev.yaml", words)
    assert job["spec"]["entrypoint"] == "phaseb run --config /etc/phaseb/config.yaml"
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert {"name": "job", "configMap": {"name": "phaseb-pipeline"}} in head["volumes"]
    [workers] = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (0, 2)
    for template in ray_parts(job)[1]:
        check_pod_is_unprivileged(template["spec"])


STAND_INS = {  # for Slurm's and Ray's commands: they say what they are given
    "scontrol": 'if [ "$1" = requeue ]; then echo "requeued $2"; else printf "node1\\nnode2\\n"; fi',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "hostname": "echo 10.0.0.1",
    "ray": 'echo "ray $*"; test "$(stat -c %a "$RAY_AUTH_TOKEN_PATH")" = 600; wc -c <"$RAY_AUTH_TOKEN_PATH"',
}


def batch_job(script: Path, folder: Path, stand_ins: dict[str, str]) -> "subprocess.Popen[str]":
    """Start a batch script as Slurm would on the first of two nodes."""
    tools = folder / "bin"
    tools.mkdir()
    for name, body in stand_ins.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    slurm = {
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "4",
    }
    environment = {**os.environ, **slurm, "PATH": f"{tools}:{os.environ['PATH']}"}
    return subprocess.Popen(["bash", str(script)], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_batch_job_that_is_told_to_leave_tells_the_run_and_waits_for_it(number, requeued, tmp_path):
    """The run alone is told: Ray and the other nodes go on until it has written its checkpoint."""
    run = 'trap "sleep 0.2; echo checkpoint written; exit 143" TERM; echo running; while :; do sleep 0.1; done'
    ray = 'while [ "$1" != -- ]; do shift; done; shift; trap "echo Ray was told too" TERM; "$@"; echo "left with $?"'
    script = ROOT / "cluster/slurm/phaseb.sbatch"
    job = batch_job(script, tmp_path, {**STAND_INS, "ray": ray, "phaseb": run})
    lines = iter(job.stdout.readline, "")
    assert "running\n" in lines
    job.send_signal(number)
    told = list(lines)
    assert job.wait(30) == 143
    assert told[1:] == ["checkpoint written\n", "left with 143\n", *(["requeued 7\n"] if requeued else [])]
    assert list(tmp_path.glob(".ray-token*")) == []


def test_a_rendered_batch_script_passes_shellcheck_and_runs_the_job(capsys, tmp_path):
    script = tmp_path / "job.sbatch"
    script.write_text(rendered(capsys, "slurm"))
    assert_shellcheck(script)
    assert "#SBATCH --nodes=2" in script.read_text()
    job = batch_job(script, tmp_path, STAND_INS)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 0
    assert "ray symmetric-run --address 10.0.0.1:6379 --min-nodes 2 --disable-usage-stats --num-cpus 4 -- env " in said
    assert f"phaseb run --config {tmp_path}/.phaseb-pipeline-7/config.yaml" in said
    assert said.splitlines()[-1] == "64"  # the token's length
    assert list(tmp_path.glob(".ray-token*")) == []  # and it is gone
    config = load_config(tmp_path / ".phaseb-pipeline-7/config.yaml")
    assert config == load_config(ROOT / "configs/dev.yaml", ["run.dir=/runs/one", "resources.wait_s=300"])


def test_a_relative_run_directory_is_refused(capsys):
    assert main(["submit", str(ROOT / "jobs/pipeline.yaml"), "--render", "kuberay"]) == 2
    assert "run.dir=/runs/pipeline" in capsys.readouterr().err
