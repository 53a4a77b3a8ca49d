"""Progress across processes: a worker writes its newest metrics to a small file, the driver reads it.

Callbacks of Ray Train run in its controller, another process, and its reports are a barrier for all workers. A file
costs neither, and works wherever the checkpoints work.
"""

import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from phaseb.errors import DataError, PhasebError
from phaseb.runtime import logs
from phaseb.runtime.storage import Store
from phaseb.training.training_state import Report

FILE = "announced.json"
POLL_S = 1.0


@contextmanager
def publish_progress(store: Store, file: str = FILE) -> Iterator[Report]:
    """Yield a function that writes metrics to the store, at most once a second; the last ones are always written.

    A thread writes them: while storage is slow, older metrics are dropped for newer ones.
    """
    newest: queue.Queue[Mapping[str, float] | None] = queue.Queue()
    thread = threading.Thread(target=_write, args=(store, file, newest), daemon=True, name="progress")
    thread.start()
    try:
        yield newest.put
    finally:
        newest.put(None)
        thread.join()


def _write(store: Store, file: str, newest: "queue.Queue[Mapping[str, float] | None]") -> None:
    written_s, pending, ended = 0.0, None, False
    while not ended:
        wait_s = max(0.0, written_s + POLL_S - time.monotonic()) if pending is not None else None
        try:
            found = newest.get(timeout=wait_s)
        except queue.Empty:
            pass
        else:
            ended, pending = found is None, pending if found is None else found
        if pending is None or not (ended or time.monotonic() - written_s >= POLL_S):
            continue
        try:
            store.write_json(dict(pending), file)
        except PhasebError as error:
            logs.event("progress not written", logging.WARNING, reason=str(error))
        written_s, pending = time.monotonic(), None


@contextmanager
def poll_progress(store: Store, on_progress: Report | None) -> Iterator[None]:
    """Hand newly published metrics to `on_progress`, in a thread, while the block runs."""
    if on_progress is None:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_poll, args=(store, on_progress, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        store.delete(FILE)


def _poll(store: Store, on_progress: Report, stop: threading.Event) -> None:
    seen = None
    while True:
        ended = stop.wait(POLL_S)
        try:
            found = store.read_json(FILE)
        except (DataError, OSError):
            found = None
        if found is not None and found != seen:
            seen = found
            on_progress(found)
        if ended:
            return
