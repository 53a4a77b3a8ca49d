"""How the driver sees what its workers do: rank 0 leaves a small file in the store, the driver reads it.

Train's own callbacks run in its controller, another process, and its reports are a barrier for all workers; a file
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
def announcing(store: Store) -> Iterator[Report]:
    """A reporter for rank 0 that leaves the newest metrics in the store, at most once a second.

    They are written in a thread of their own: what is announced while storage is slow is dropped for what is newer.
    """
    newest: queue.Queue[Mapping[str, float] | None] = queue.Queue()
    thread = threading.Thread(target=_write, args=(store, newest), daemon=True, name="announcements")
    thread.start()
    try:
        yield newest.put
    finally:
        newest.put(None)
        thread.join()


def _write(store: Store, newest: "queue.Queue[Mapping[str, float] | None]") -> None:
    last = 0.0
    while True:
        found = newest.get()
        while not newest.empty() and found is not None:
            following = newest.get()
            if following is None:
                newest.put(None)
                break
            found = following
        if found is None:
            return
        if time.monotonic() - last >= POLL_S or found["step"] == found["num_steps"]:
            try:
                store.write_json(dict(found), FILE)
            except PhasebError as error:
                logs.event("progress not told", logging.WARNING, reason=str(error))
            last = time.monotonic()


@contextmanager
def following(store: Store, on_progress: Report | None) -> Iterator[None]:
    """Hand every newly announced set of metrics to `on_progress` while the block runs."""
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
