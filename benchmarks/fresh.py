"""Commands in processes of their own: what a user waits for, imports included."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import psutil

LOOK_S = 0.2


def once(words: Sequence[str]) -> tuple[float, float]:
    """Seconds by the clock and of processors (its children's that it waited for too) that a Python command takes."""
    before, started = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-500:]}")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, spent


def watched(words: Sequence[str]) -> tuple[float, float]:
    """The same with the processors' seconds of every process that descends from it, daemons of Ray among them: looked
    up while they live, so that the last tenths of a second of each are missing."""
    started, spent = time.perf_counter(), dict[tuple[int, float], float]()
    with tempfile.TemporaryFile() as said:
        process = psutil.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=said)
        while process.poll() is None:
            for one in _family(process):
                with contextlib.suppress(psutil.Error):
                    times = one.cpu_times()
                    spent[one.pid, one.create_time()] = times.user + times.system
            time.sleep(LOOK_S)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(words)} ended with {process.returncode}: {said.read()[-500:].decode()}")
    return time.perf_counter() - started, sum(spent.values())


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []
