"""A disk that fills up while a run works, and is freed again: the run ends with the results of a calm one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nodes import wait_for
from program import environment, strict_json, tiny

SIZE_MB = 24
WORDS = ["run", "--config", "tiny.yaml", "--json"]


def can_mount() -> bool:
    return (
        bool(shutil.which("unshare"))
        and subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
        ).returncode
        == 0
    )


@pytest.mark.skipif(not can_mount(), reason="needs to mount a small disk, and may not")
def test_a_full_disk(calm: dict[str, Any], tmp_path: Path, measured) -> None:
    """A run alone in a mount namespace with a small disk; another process there fills it and, later, frees it."""
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny(training={"checkpoint_every_s": 0.05})))
    disk, log = tmp_path / "disk", tmp_path / "log"
    disk.mkdir()
    script = f"""
        mount -t tmpfs -o size={SIZE_MB}m tmpfs {disk}
        (
            until grep -q '"dynamics/gru"' {disk}/run/run.json 2>/dev/null; do sleep 0.1; done
            dd if=/dev/zero of={disk}/filler bs=64k status=none 2>/dev/null
            echo full >{tmp_path}/full
            until [ -e {tmp_path}/free ]; do sleep 0.1; done
            rm {disk}/filler
        ) &
        exec {sys.executable} -m phaseb.submit.retry_entrypoint 20 {" ".join(WORDS)} run.dir={disk}/run
    """
    with log.open("w") as told:
        process = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", script],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
        )
    try:
        wait_for(lambda: "the disk is full" in log.read_text() or process.poll() is not None, "a full disk")
        assert process.poll() is None, log.read_text()
        (tmp_path / "free").touch()
        out, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, log.read_text()
    measured(f"{log.read_text().count('going on')} new attempts")
    found = strict_json(out)
    assert found["arms"] == calm["arms"]
    assert found["numbers"] == calm["numbers"]
