"""Jobs sent to a real Ray head, started on loopback by the script that users start it with."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from phaseb.cli.main import main
from phaseb.submit.client import Client

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef" * 4


def free_ports(num: int) -> list[int]:
    """Ports below those that Ray gives its workers (10002 and up) and the kernel gives at random."""
    found: list[int] = []
    for port in range(6500 + os.getpid() % 2000, 10_000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == num:
            return found
    raise RuntimeError("no free ports")


@pytest.fixture(scope="module")
def head():
    """The address of a head closed by TOKEN; stopped by its process id at the end."""
    ports = free_ports(4)
    folder = Path(tempfile.mkdtemp(prefix="ph", dir="/tmp"))
    (folder / "token").write_text(TOKEN)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    names = ("PHASEB_RAY_PORT", "PHASEB_DASHBOARD_PORT", "PHASEB_AGENT_PORT", "PHASEB_CLIENT_PORT")
    environment = {
        **clean,
        **dict(zip(names, map(str, ports), strict=True)),
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "PATH": f"{Path(sys.executable).parent}:{clean['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    command = [
        str(ROOT / "cluster/local/start-head.sh"),
        "--num-cpus=2",
        "--object-store-memory=150000000",
        f"--temp-dir={folder / 'ray'}",
    ]
    address = f"http://127.0.0.1:{ports[1]}"
    process = start_head(command, environment, folder / "log")
    try:
        yield address
    finally:
        stop_head(process)
        shutil.rmtree(folder, ignore_errors=True)


def start_head(command: list[str], environment: dict[str, str], log: Path, tries: int = 3) -> subprocess.Popen[bytes]:
    """A head that is up. Ray gives a node 30 s to start, which a busy machine can miss: then it is started again."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True)
    deadline = time.monotonic() + 120
    while b"Ray runtime started" not in log.read_bytes():
        if process.poll() is not None and tries > 1 and "timed out during startup" in log.read_text():
            return start_head(command, environment, log, tries - 1)
        if process.poll() is not None or time.monotonic() > deadline:
            stop_head(process)
            raise AssertionError(log.read_text())
        time.sleep(0.5)
    return process


def stop_head(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


def write_job(folder: Path, **fields: str) -> str:
    text = {"name": "try", "job": "collect", **fields}
    path = folder / "job.yaml"
    path.write_text("\n".join(f"{name}: {value}" for name, value in text.items()))
    return str(path)


def test_a_stranger_is_refused(head, monkeypatch, tmp_path, capsys):
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{head}/api/jobs/")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["submit", write_job(tmp_path), "--address", head]) == 4
    assert "asks for a token; set RAY_AUTH_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    assert main(["submit", write_job(tmp_path), "--address", head]) == 4
    assert "refuses this token" in capsys.readouterr().err


def test_a_job_runs_to_its_end_where_the_shell_stood(head, token, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    small = (
        "{episodes.num_train: 2, episodes.num_dev: 1, episodes.num_test: 1, environment.observation: state, "
        "resources.num_tasks: 1}"
    )
    job = write_job(tmp_path, overrides=small)
    assert main(["submit", job, "--address", head, "run.dir=runs/here"]) == 0
    assert (tmp_path / "runs/here/run.json").exists()
    out, err = capfd.readouterr()
    assert "episodes 4" in out
    job_id = err.split("submitted ")[1].split()[0]
    assert main(["status", job_id, "--address", head]) == 0
    assert f"{job_id}: succeeded" in capfd.readouterr().out
    assert main(["logs", job_id, "--address", head]) == 0
    assert "episodes 4" in capfd.readouterr().out


def test_a_users_fault_on_the_cluster_keeps_its_exit_code_and_is_not_tried_again(head, token, tmp_path, capfd):
    job = write_job(tmp_path, job="bricks", retries="3")
    assert main(["submit", job, "--address", head, f"run.dir={tmp_path}/run"]) == 3
    assert "going on" not in capfd.readouterr().out


def test_only_the_package_and_the_config_are_shipped_and_a_running_job_can_be_stopped(head, token, tmp_path, capfd):
    from phaseb.submit.send import package, prepare

    (tmp_path / "staged").mkdir()
    request = package(*prepare(write_job(tmp_path)), None, tmp_path / "staged")
    look = (
        "import os, phaseb, time; code = os.path.dirname(os.path.dirname(phaseb.__file__)); "
        "print(os.listdir(), os.listdir(code)"
    )
    request["entrypoint"] = f'python -c "{look}, flush=True); time.sleep(600)"'
    job_id = Client(head).submit(**request)
    deadline = time.monotonic() + 60
    while "phaseb" not in Client(head).ask("get_job_logs", job_id) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert main(["stop", job_id, "--address", head]) == 0
    assert main(["logs", job_id, "--address", head]) == 1
    out = capfd.readouterr().out
    assert "['config.yaml'] ['phaseb']" in out
    assert main(["status", job_id, "--address", head]) == 1
    assert "stopped" in capfd.readouterr().out


def test_an_unknown_job_and_a_silent_address_are_clear_errors(head, token, capsys):
    assert main(["status", "nobody", "--address", head]) == 4
    assert "nobody" in capsys.readouterr().err
    assert main(["status", "nobody", "--address", f"http://127.0.0.1:{free_ports(1)[0]}"]) == 4
    assert "no job server answers" in capsys.readouterr().err
