"""A terminal that is not UTF-8, and streams that are closed, cost nobody a result."""

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from phaseb.runtime import progress_bar
from phaseb.runtime.progress_bar import StageView
from phaseb.runtime.streams import ERRORS, prepare

PROGRAM = [sys.executable, "-m", "phaseb.cli"]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PROGRAM, *words], env=os.environ | environment, capture_output=True, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_output_goes_to_a_terminal_that_is_not_utf8(encoding):
    done = run("settings", "run.seed", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert b"(whole number, >= 0)" in done.stdout


def test_only_stdout_is_not_utf8(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    prepare()
    assert out.errors == ERRORS
    print("ρ 0.95–1 → σ ≥ 0.1")
    out.flush()
    assert out.buffer.getvalue() == b"? 0.95-1 -> sigma >= 0.1\n"


def test_bars_are_ascii_where_the_terminal_is(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: float(next(ticks)))
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    view = StageView(Console(file=out, width=100), ["policy"])
    view.on_stage_start("policy")
    line = view.line("train", {"step": 1, "num_steps": 10})
    assert "##.................." in line
    line.encode("ascii")


@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "0<&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_neither_stop_a_command_nor_lend_their_number_to_a_file(closed, tmp_path):
    words = f"{sys.executable} -m phaseb.cli.main init {tmp_path / 'here'} {closed}"
    done = subprocess.run(["sh", "-c", words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "configs" / "dev.yaml").is_file()


def test_an_error_does_not_land_on_stdout_where_stderr_is_closed():
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m phaseb.cli run policy.discount=7 2>&-"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_to_a_full_disk_is_one_line():
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m phaseb.cli settings control_hz >/dev/full"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "phaseb: cannot write: No space left on device; free space, or write elsewhere\n"
