"""The head dies with all that runs on it, and is started again: the run goes on, on the nodes that are still there."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from nodes import strike, wait_for
from program import environment, lineage, strict_json, tiny

FOLDER = Path(__file__).parent
TOKEN = "0123456789abcdef" * 4
PORT = 6301 + os.getpid() % 500


class Nodes:
    """Nodes as processes, each with all that it started; the head keeps what it knows on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "known").mkdir()
        self.environment = environment() | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_gcs_storage": "rocksdb",
            "RAY_gcs_storage_path": str(folder / "known"),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.processes: list[subprocess.Popen[str]] = []
        self.address = ""

    def start(self, kind: str, cpus: int) -> subprocess.Popen[str]:
        log = self.folder / f"{kind}-{len(self.processes)}.log"
        words = [sys.executable, str(FOLDER / "node.py"), kind, str(PORT), str(self.folder / "ray"), str(cpus)]
        with log.open("w") as file:
            process = subprocess.Popen(words, env=self.environment, stdout=file, stderr=file, text=True)
        self.processes.append(process)
        wait_for(lambda: "up " in log.read_text() or process.poll() is not None, f"a {kind}")
        assert process.poll() is None, log.read_text()[-2000:]
        self.address = log.read_text().split("up ")[1].split()[0]
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        """The machine loses power: everything on it goes at once."""
        all_of_it = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        strike(all_of_it, signal.SIGKILL)
        process.wait()
        psutil.wait_procs(all_of_it, timeout=30)


@pytest.fixture
def cluster() -> Iterator[Nodes]:
    with tempfile.TemporaryDirectory(prefix="hd", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Nodes(Path(folder))
        try:
            yield made
        finally:
            for process in made.processes:
                if process.poll() is None:
                    made.kill(process)


def test_the_head_is_killed_and_started_again(cluster: Nodes, calm: dict[str, Any], tmp_path: Path, measured) -> None:
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny(training={"checkpoint_every_s": 0.2})))
    head = cluster.start("head", 0)
    cluster.start("worker", 2)
    words = [
        sys.executable,
        "-m",
        "phaseb.submit.retry_entrypoint",
        "6",
        "run",
        "--config",
        "tiny.yaml",
        "--json",
        "run.dir=struck",
        f"resources.address={cluster.address}",
        "resources.wait_s=60",
    ]
    log = tmp_path / "log"
    with log.open("w") as told:
        driver = subprocess.Popen(
            words, cwd=tmp_path, env=cluster.environment, stdout=subprocess.PIPE, stderr=told, text=True
        )
    run = tmp_path / "struck"
    wait_for(lambda: driver.poll() is not None or started(run, "trust"), "the middle of the run")
    assert driver.poll() is None, log.read_text()
    cluster.kill(head)
    begin = time.monotonic()
    cluster.start("head", 0)
    out, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, log.read_text()
    measured(
        f"run ended {time.monotonic() - begin:.0f} s after the kill, {log.read_text().count('going on')} new attempts"
    )
    found = strict_json(out)
    assert found["arms"] == calm["arms"]
    assert found["numbers"] == calm["numbers"]


def started(run: Path, stage: str) -> bool:
    return (run / "run.json").exists() and stage in lineage(run)["stages"]
