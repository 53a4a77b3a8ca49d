"""What reaches a training worker from outside while it trains: its node will be taken away, or its driver must leave.

Ray tells of nodes that are drained (spot machines, autoscalers, `ray drain-node`); the driver leaves a file in the
store, which works wherever checkpoints do.
"""

import threading
import time
from types import TracebackType

from phaseb.errors import PhasebError
from phaseb.runtime.storage import Store

FILE = "leave.json"
LISTEN_S = 1.0


class Listener:
    """Listens in a thread of its own while the block runs, so that a step never waits for storage."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._preempted = self._leaving = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True, name="listener")

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()

    def noticed(self) -> bool:
        """Whether a node of this training will be taken away."""
        return self._preempted

    def leaving(self) -> bool:
        """Whether the driver asked for a checkpoint because it leaves."""
        return self._leaving

    def left(self) -> None:
        """Tell the driver that the checkpoint it asked for is written."""
        self._store.delete(FILE)

    def _listen(self) -> None:
        while not self._end.wait(LISTEN_S):
            self._preempted = self._preempted or _node_is_leaving()
            try:
                self._leaving = self._leaving or self._store.exists(FILE)
            except OSError:
                continue  # storage is away, and so is the driver's word


def ask_to_leave(store: Store, patience_s: float) -> bool:
    """Have the first worker write a checkpoint at once; whether it did so in time."""
    deadline = time.monotonic() + patience_s
    try:
        store.write_json({}, FILE)
        while time.monotonic() < deadline:
            if not store.exists(FILE):
                return True
            time.sleep(LISTEN_S / 5)
        store.delete(FILE)
    except (OSError, PhasebError):
        return False
    return False


def _node_is_leaving() -> bool:
    """What Ray told this worker of drained nodes. `ray.train.get_preemption_info` asks all workers and waits for them,
    which a thread beside the training must not; this is the same word without the waiting."""
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None
