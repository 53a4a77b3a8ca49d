"""How the driver sees what its workers do: rank 0 leaves a small file in the store, the driver reads it.

Train's own callbacks run in its controller, another process, and its reports are a barrier for all workers; a file
costs neither, and works wherever the checkpoints work.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from phaseb.errors import DataError
from phaseb.storage import Store
from phaseb.training.loop import Report

FILE = "announced.json"
POLL_S = 1.0


def announcing(store: Store) -> Report:
    """A reporter for rank 0 that leaves the newest metrics in the store, at most once a second."""
    last = 0.0

    def announce(metrics: Mapping[str, float]) -> None:
        nonlocal last
        if time.monotonic() - last >= POLL_S or metrics["step"] == metrics["num_steps"]:
            store.write_json(dict(metrics), FILE)
            last = time.monotonic()

    return announce


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
        except DataError:
            found = None
        if found is not None and found != seen:
            seen = found
            on_progress(found)
        if ended:
            return
