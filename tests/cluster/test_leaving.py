"""SIGTERM with a notice, as Slurm, Kubernetes and spot machines give it: a checkpoint is written, then it leaves."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from nodes import wait_for
from program import PROGRAM, environment, phaseb, strict_json, tiny

NOTICE_S = 30.0
STEPS = 300


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose next stage trains the world model."""
    folder = tmp_path_factory.mktemp("encoded")
    config = folder / "tiny.yaml"
    config.write_text(
        json.dumps(
            tiny(
                training={"checkpoint_every_s": 3600.0, "validate_every": 20},
                dynamics={"gru": {"num_steps": STEPS}},
            )
        )
    )
    for stage in ("collect", "encode"):
        done = phaseb(stage, "--config", config, f"run.dir={folder / 'run'}", cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_writes_a_checkpoint_and_leaves(workers: int, encoded: Path, tmp_path: Path, measured) -> None:
    """No checkpoint is due for an hour, so what it goes on from is what the notice had it write."""
    shutil.copytree(encoded, tmp_path, dirs_exist_ok=True)
    words = ["dynamics", "--config", tmp_path / "tiny.yaml", "--json", f"resources.num_workers={workers}"]
    log, progress = tmp_path / "log", tmp_path / "run" / "dynamics" / "gru" / "progress"
    with log.open("w") as told:
        command = [PROGRAM, *map(str, words), f"run.dir={tmp_path / 'run'}"]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment() | {"PHASEB_LOG": "json"}, stderr=told)

    def training() -> bool:
        return (tmp_path / "run" / "progress" / "dynamics-gru.json").exists()

    wait_for(lambda: process.poll() is not None or training(), "the training")
    assert process.poll() is None, log.read_text()
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(NOTICE_S) == 143, log.read_text()
    step = json.loads((progress / "meta.json").read_text())["meta"]["next_step"]
    measured(f"left {time.monotonic() - begin:.1f} s after the notice, at step {step} of {STEPS}")
    assert 0 < step < STEPS
    last = phaseb(*words, f"run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    assert strict_json(last.stdout)["gru"]["std_ratio"] > 0
