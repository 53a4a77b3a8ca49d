"""Commands in processes of their own: what a user waits for, imports included."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence


def once(words: Sequence[str]) -> tuple[float, float]:
    """Seconds by the clock and of processors (its children's that it waited for too) that a Python command takes."""
    before, started = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-500:]}")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, spent
