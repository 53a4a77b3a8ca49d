"""`kill -9` of the program in the middle of its stages: run again, it ends with the results of a run left alone."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from program import PROGRAM, RETRY_S, agree, environment, leftovers, lineage, phaseb, strict_json, write_config

TRAINING = {
    "encode": "encoder",
    "dynamics/gru": "dynamics/gru",
    "trust": "trust",
    "baselines": "baselines",
    "policy": "policy",
}
"""Stages that train, and the folders in which their checkpoints lie."""
WORKERS = {"collect": 0, "dynamics/gru": 1, "trust": 0, "baselines": 0, "policy": 0, "evaluate": 0}
"""Stages in which the program is killed, and the Ray Train workers that it then has; 0: the stage's process trains."""

ONE_BY_ONE = ("dynamics/gru", "trust", "baselines")
"""Stages that are struck while they work alone: beside others, the baselines may have ended before they are struck."""

BUSY_TRIES = 3  # Ray gives up starting on a machine that is too busy for it


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_killed_in_one_stage_after_another_it_ends_with_the_same_results(finished, tmp_path):
    config, run = write_config(tmp_path), tmp_path / "runs" / "tiny"
    interrupted = [stage for stage in WORKERS if kill_in(stage, config, run)]
    assert len(interrupted) >= len(WORKERS) - 1, interrupted  # the very last moment of a stage may be missed once
    last = phaseb("run", "--config", config, "--json", cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    assert leftovers(run) == []
    killed, whole = strict_json(last.stdout), strict_json(finished.process.stdout)
    for part in ("shipped", "numbers", "arms"):
        agree(killed[part], whole[part], part)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_killed_while_it_trains_the_encoder_of_frames_it_ends_with_the_same_latents(tmp_path):
    digests = []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        config = write_config(
            tmp_path / name, environment={"observation": "both", "max_steps": 20}, latents={"num_steps": 40}
        )
        run = tmp_path / name / "runs" / "tiny"
        if name == "killed":
            assert kill_in("encode", config, run)
        for stage in ("collect", "encode"):
            ended = phaseb(stage, "--config", config, cwd=config.parent)
            assert ended.returncode == 0, ended.stderr
        digests.append(lineage(run)["stages"]["encode"]["outputs"]["latents"])
    assert digests[0] == digests[1]


def kill_in(stage: str, config: Path, run: Path) -> bool:
    """Start the run, kill it once it is in the middle of a stage; whether the stage was really left unfinished."""
    log = config.parent / f"{stage.replace('/', '-')}.log"
    for _ in range(BUSY_TRIES):
        if killed_in_the_middle(stage, config, run, log):
            return lineage(run)["stages"][stage]["state"] == "started"
        assert "Ray does not start here" in log.read_text(), f"ended before {stage}: {log.read_text()}"
    raise AssertionError(f"this machine is too busy to start Ray: {log.read_text()}")


def killed_in_the_middle(stage: str, config: Path, run: Path, log: Path) -> bool:
    """Kill the run in a stage; False where it ended by itself before."""
    resources = [
        f"resources.num_workers={WORKERS.get(stage, 1)}",
        f"resources.num_tasks={1 if stage in ONE_BY_ONE else 2}",
    ]
    words = [PROGRAM, "run", "--config", config, *resources]
    with (
        log.open("w") as told,
        subprocess.Popen(
            words, cwd=config.parent, env=environment(), stdout=subprocess.DEVNULL, stderr=told
        ) as process,
    ):
        try:
            deadline = time.monotonic() + RETRY_S
            while not in_the_middle(stage, run):
                if process.poll() is not None:
                    return False
                assert time.monotonic() < deadline, f"{stage} never started: {log.read_text()}"
                time.sleep(0.005)
        finally:
            process.send_signal(signal.SIGKILL)
    return True


def in_the_middle(stage: str, run: Path) -> bool:
    """The stage has started and, where it trains, has left a checkpoint."""
    if not (run / "run.json").exists():
        return False
    if lineage(run)["stages"].get(stage, {}).get("state") != "started":
        return False
    return stage not in TRAINING or any((run / TRAINING[stage] / "progress").rglob("meta.json"))
