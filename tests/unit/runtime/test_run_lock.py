"""One process at a time in a run directory: the second is told who is there; what died is recognised."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "cluster"))

from s3 import s3_server

from phaseb.errors import ConfigError
from phaseb.runtime import run_lock as locks
from phaseb.runtime.run_lock import FOLDER, run_lock
from phaseb.runtime.storage import Store

HOLD = """
import sys, time
from phaseb.runtime.run_lock import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(place: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, place], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "object store"])
def place(request, tmp_path, s3):
    return str(tmp_path / "run") if request.param == "folder" else s3.uri(f"locks-{time.monotonic_ns()}", "run")


def test_the_second_is_told_who_is_there_and_a_killed_holder_leaves_the_folder_free(place):
    process = holder(place)
    try:
        with pytest.raises(ConfigError) as refused, run_lock(place):
            raise AssertionError("both hold it")
        (line,) = str(refused.value).splitlines()
        assert f"is in use by process {process.pid} on {os.uname().nodename}, since 20" in line
        assert line.endswith("wait for it to end, stop it, or choose another run.dir")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert Store.at(place).names(FOLDER) != []  # its claim is still there
    with run_lock(place), run_lock(place):  # who holds it may hold it again
        assert len(Store.at(place).names(FOLDER)) == 1
    assert Store.at(place).names(FOLDER) == []


def test_nothing_stays_behind_in_a_folder(tmp_path):
    with run_lock(str(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []


def claim(number: int, **fields: object) -> str:
    owner = {"host": "elsewhere", "place": "boot", "pid": 7, "born": "1", "since": "2026-01-01T00:00:00+00:00"}
    return json.dumps({**owner, "entering": False, "number": number, "beat": 0, **fields})


def test_a_claim_from_another_host_whose_beat_stands_still_is_stale(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SILENCE_S", 0.2)
    monkeypatch.setattr(locks, "LOOK_S", 0.05)
    Store.at(str(tmp_path)).write_text(claim(1), FOLDER, "other.json")
    with run_lock(str(tmp_path)):
        assert "other.json" not in Store.at(str(tmp_path)).names(FOLDER)


def test_a_claim_from_another_host_whose_beat_goes_on_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "LOOK_S", 0.05)
    store = Store.at(str(tmp_path))
    store.write_text(claim(1), FOLDER, "other.json")
    beats = threading.Timer(0.2, lambda: store.write_text(claim(1, beat=1), FOLDER, "other.json"))
    beats.start()
    told = "in use by process 7 on elsewhere, since 2026-01-01"
    with pytest.raises(ConfigError, match=told), run_lock(str(tmp_path)):
        raise AssertionError("both hold it")
    assert store.names(FOLDER) == ["other.json"]


def test_a_number_that_another_process_has_now_is_no_holder(tmp_path):
    """Process ids are used again: the time of the start tells them apart."""
    mine = locks.Owner.this_process()
    Store.at(str(tmp_path)).write_text(
        claim(1, host=mine.host, place=mine.place, pid=os.getppid(), born="0"), FOLDER, "other.json"
    )
    with run_lock(str(tmp_path)):
        assert "other.json" not in Store.at(str(tmp_path)).names(FOLDER)


def test_of_many_that_come_at_once_one_has_the_folder(tmp_path):
    code = """
import sys, time
from phaseb.errors import ConfigError
from phaseb.runtime.run_lock import run_lock
while time.time() < float(sys.argv[2]):
    time.sleep(0.001)
try:
    with run_lock(sys.argv[1]):
        print("held", flush=True)
        time.sleep(3)
except ConfigError:
    print("refused", flush=True)
"""
    start = str(time.time() + 3)
    many = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run"), start], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    told = sorted(process.communicate()[0].strip() for process in many)
    assert told == ["held", "refused", "refused", "refused"]


def test_a_folder_that_cannot_be_written_is_left_to_the_run_to_complain_of(tmp_path):
    (tmp_path / "file").write_text("mine")
    with run_lock(str(tmp_path / "file" / "run")):
        assert (tmp_path / "file").read_text() == "mine"


def test_the_beat_goes_on_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.05)
    store = Store.at(str(tmp_path))
    with run_lock(str(tmp_path)):
        (name,) = store.names(FOLDER)
        deadline = time.monotonic() + 10
        while store.read_json(FOLDER, name)["beat"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
