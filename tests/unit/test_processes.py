"""The helper that finds a test's own processes, beside processes that end meanwhile."""

import subprocess
import sys
import time

from processes import descendants

TITLE = "a-process-of-this-test"


def test_living_descendants_are_found_and_those_that_end_are_no_error():
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)", TITLE]
    with subprocess.Popen(sleeper) as living:
        try:
            ending = [subprocess.Popen(["sleep", str(i / 400)]) for i in range(60)]  # none is waited for: zombies too
            deadline = time.monotonic() + 0.3
            while time.monotonic() < deadline:
                assert descendants(TITLE) == {living.pid}
                descendants("")
            for process in ending:
                process.wait()
        finally:
            living.kill()
    assert descendants(TITLE) == set()
