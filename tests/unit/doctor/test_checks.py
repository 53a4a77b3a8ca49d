"""The doctor names what is wrong, with a fix, and is quiet about the rest."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "cluster"))

from s3 import s3_server

from phaseb.doctor import checks
from phaseb.runtime.storage import Store


def test_each_finding_that_is_not_ok_says_what_to_do(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checks, "CHECKS", tuple(look for look in checks.CHECKS if look is not checks.ray_starts))
    assert checks.run_checks(as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert {f["name"] for f in found} >= {"versions", "CPUs", "memory", "storage", "network", "token"}
    assert all(f["fix"] for f in found if f["state"] != "ok")
    assert not any(f["fix"] for f in found if f["state"] == "ok")
    assert list(tmp_path.iterdir()) == []  # the write test cleans up


def test_it_sees_an_open_ray_a_readable_token_and_too_many_threads(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert checks.check_exposure()[0].state == "warning"
    monkeypatch.delenv("RAY_AUTH_MODE")
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    assert checks.check_exposure()[0].fix == f"chmod 600 {token}"
    assert "secret" not in str(checks.check_exposure())
    token.chmod(0o600)
    assert checks.check_exposure()[0].state == "ok"
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert [f.name for f in checks.processors()] == ["CPUs", "threads"]


def test_a_wrong_ray_is_bad_and_gives_exit_code_4(monkeypatch, capsys):
    monkeypatch.setattr(checks, "_version", lambda name: "2.9.0" if name == "ray" else "1.0")
    monkeypatch.setattr(checks, "CHECKS", (checks.versions,))
    assert checks.run_checks() == 4
    assert "-> phaseb is made for Ray 2.60" in capsys.readouterr().out


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


def test_storage_is_tried_out_where_runs_will_be(s3, tmp_path):
    for where in (s3.uri("a", "folder"), str(tmp_path / "not" / "yet")):
        [found] = [f for f in checks.storage(where) if f.name == "storage"]
        assert found.state == "ok", found
        assert "read back" in found.seen
    assert not Store.at(s3.uri("a")).exists()  # nothing stays behind, of the folders above it neither
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    checks.storage(str(tmp_path / "mine"))
    assert (tmp_path / "mine").is_dir()  # what was there stays


def test_storage_that_cannot_be_written_is_bad_and_says_what_to_look_at(s3, tmp_path, monkeypatch):
    [found] = checks.storage(s3.uri().replace("runs", "nobucket", 1))
    assert found.state == "bad"
    assert "does the bucket exist" in found.fix
    (tmp_path / "file").touch()
    assert checks.storage(str(tmp_path / "file"))[0].state == "bad"
    assert "secret" not in str(checks.storage("s3://key:secret@bucket/x"))
    monkeypatch.setattr(checks, "STORAGE_S", 0.5)
    s3.stop()
    assert checks.storage(s3.uri("a"))[0].state == "bad"
    s3.start()


def test_a_clock_that_is_off_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(checks.time, "time", lambda: 1000.0)
    assert [f.name for f in checks.storage(str(tmp_path))] == ["storage", "storage clock"]


def test_workers_add_up_on_processors_as_they_would_on_gpus():
    """The same processes and the same sum as with NCCL; a backend that is not there is bad, with its reason."""
    assert checks.collective("gloo", 2, "gloo").state == "ok"
    wrong = checks.collective("nosuch", 1, "nosuch")
    assert (wrong.state, bool(wrong.fix)) == ("bad", True)


def test_small_shared_memory_is_told(monkeypatch):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 64 * 2**20})())
    [found] = [f for f in checks.memory() if f.name == "shared memory"]
    assert found.state == "warning"
    assert "--shm-size" in found.fix
