"""Watch over a cluster's head from a driver elsewhere: where the head is lost, what the driver waits for never comes.

Ray's workers find a head that was started again; a driver's tasks that were under way may not. The driver ends then,
with the exit code of a cluster's failure: whoever started it (`phaseb.submit.retry_entrypoint`, a batch system) starts
it again, and the run goes on from what is on storage.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from phaseb.errors import ClusterError

LOOK_S = 0.5
REFUSALS = 2
SILENCE_S = 30.0
"""A head that does not even refuse connections for that long counts as lost."""


@contextmanager
def watch_head(address: str) -> Iterator[None]:
    """End this process, with a line on stderr, when nobody listens at the head's `host:port` any more."""
    end = threading.Event()
    threading.Thread(target=_watch, args=(address, end), daemon=True, name="head-watch").start()
    try:
        yield
    finally:
        end.set()


def wait_until_lost(address: str, end: threading.Event) -> bool:
    """Wait until the head is lost (True) or `end` is set (False)."""
    host, _, port = address.rpartition(":")
    refusals, heard_s = 0, time.monotonic()
    while not end.wait(LOOK_S):
        try:
            socket.create_connection((host, int(port)), timeout=SILENCE_S / 3).close()
            refusals, heard_s = 0, time.monotonic()
        except ConnectionRefusedError:
            refusals += 1
        except OSError:
            refusals = 0
        if refusals >= REFUSALS or time.monotonic() - heard_s > SILENCE_S:
            return True
    return False


def _watch(address: str, end: threading.Event) -> None:
    if wait_until_lost(address, end):
        sys.stderr.write(f"phaseb: the head of the cluster at {address} is gone; run the same command again to go on\n")
        sys.stderr.flush()
        os._exit(ClusterError.exit_code)  # the main thread waits in Ray's core, which nothing wakes
