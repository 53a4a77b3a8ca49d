"""Run a command of phaseb, and again after failures that are not the user's: what a submitted job starts.

`python -m phaseb.submit.retry_entrypoint RETRIES COMMAND …`. A run goes on from what its directory holds, so
another attempt is not a fresh start. It lives on the cluster, so nobody needs to stay connected for it.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

USERS_FAULT = (2, 3)
PAUSE_S = 5.0


def attempt(command: Sequence[str], retries: int, pause_s: float = PAUSE_S) -> int:
    """Run a command until it succeeds, fails by the user's fault, is told to stop, or has used its retries up."""
    stopped = False
    process: subprocess.Popen[bytes] | None = None

    def copy_checkpoint(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        if process is not None:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, copy_checkpoint)
    for left in range(retries, -1, -1):
        process = subprocess.Popen(command)
        code = process.wait()
        if code == 0 or code in USERS_FAULT or stopped or left == 0:
            break
        print(f"phaseb: failed with exit code {code}; going on ({left} retries left)", file=sys.stderr)  # noqa: T201
        time.sleep(pause_s)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(attempt([sys.executable, "-m", "phaseb.cli", *sys.argv[2:]], int(sys.argv[1])))
