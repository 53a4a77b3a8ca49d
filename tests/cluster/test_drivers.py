"""`kill -9` of the programs that drive, and of a node under a search's trials, on a cluster of several nodes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from nodes import Machines, wait_for, workers
from program import environment, lineage, strict_json, tiny

STUDY = """
job: valley:Valley
overrides: {dynamics.gru.num_steps: 27}
metrics: {name: height}
space:
  dynamics.gru.learning_rate: {loguniform: [0.0001, 1.0]}
  dynamics.gru.weights.trust: {uniform: [0, 1]}
search: {num_startup: 4}
scheduler: {kind: none}
budget: {trials: 12}
resources: {cpus: 0.5}
reports: 9
confirm: {top: 0}
"""


@pytest.fixture
def joining(machines: Machines) -> dict[str, str]:
    """The environment of a program that joins the cluster."""
    machines.scale(2)
    token = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    return environment() | token | {"RAY_ADDRESS": machines.cluster.address, "VALLEY_PAUSE_S": "0.03"}


def program(folder: Path, environ: dict[str, str], *words: str) -> "subprocess.Popen[str]":
    log = (folder / "log").open("a")
    command = [sys.executable, "-m", "phaseb.cli", *words]
    return subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=log, text=True)


def ended(folder: Path) -> dict[str, bytes]:
    """The records of a study's trials that are over."""
    files = {p.name: p.read_bytes() for p in (folder / "runs/default/studies/study/trials").glob("*.json")}
    return {name: data for name, data in files.items() if b'"state": "running"' not in data}


def test_a_runs_driver(joining: dict[str, str], calm: dict[str, Any], tmp_path: Path) -> None:
    """Killed while its worker on another node trains; run again, it goes on from the worker's checkpoint."""
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny(resources={"num_workers": 1})))
    words, run = ["run", "--config", "tiny.yaml", "--json", "run.dir=run"], tmp_path / "run"

    def training() -> bool:
        started = (run / "run.json").exists() and lineage(run)["stages"].get("encode", {}).get("state") == "started"
        return started and (run / "encoder/progress/meta.json").exists()

    driver = program(tmp_path, joining, *words)
    wait_for(lambda: training() or driver.poll() is not None, "a training")
    driver.kill()
    driver.wait()
    assert lineage(run)["stages"]["encode"]["state"] == "started"
    out, _ = program(tmp_path, joining, *words, "resources.num_workers=0").communicate()
    found = strict_json(out)
    assert found["arms"] == calm["arms"]
    assert found["numbers"] == calm["numbers"]


def test_a_searchs_driver(joining: dict[str, str], tmp_path: Path, measured) -> None:
    """Killed in the middle of trials on two nodes: what had ended stays as it is, what had not is taken up again."""
    (tmp_path / "study.yaml").write_text(STUDY)
    words = ["tune", "study.yaml", "--auto-resume", "--json"]
    driver = program(tmp_path, joining, *words)
    wait_for(lambda: len(ended(tmp_path)) >= 4 or driver.poll() is not None, "some trials")
    driver.kill()
    driver.wait()
    before = ended(tmp_path)
    assert 4 <= len(before) < 12, (tmp_path / "log").read_text()
    wait_for(lambda: ray.available_resources().get("CPU") == 2, "trials that lost their driver to end", 60)
    out, _ = program(tmp_path, joining, *words).communicate()
    assert strict_json(out)["num_trials"] == {"done": 12, "stopped": 0, "failed": 0, "running": 0}
    after = ended(tmp_path)
    assert len(after) == 12
    assert {name: after[name] for name in before} == before
    measured(f"killed with {len(before)} of 12 trials ended")


def test_a_searchs_node(joining: dict[str, str], machines: Machines, tmp_path: Path, measured) -> None:
    """A node goes with the trials on it: these are started again on the other, none is lost and none counted twice."""
    (tmp_path / "study.yaml").write_text(STUDY)
    driver = program(tmp_path, joining, "tune", "study.yaml", "--json")
    wait_for(lambda: len(ended(tmp_path)) >= 3 or driver.poll() is not None, "some trials")
    struck = next(node for node in machines.nodes if workers(node, "ImplicitFunc"))
    before = ended(tmp_path)
    machines.kill(struck)
    out, _ = driver.communicate()
    assert len(before) < 12
    assert strict_json(out)["num_trials"] == {"done": 12, "stopped": 0, "failed": 0, "running": 0}
    after = ended(tmp_path)
    assert len(after) == 12
    assert {name: after[name] for name in before} == before
    measured(f"killed with {len(before)} of 12 trials ended")
