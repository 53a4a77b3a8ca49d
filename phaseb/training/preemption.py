"""Requests that reach a training from outside: its node will be taken away, or its driver stops.

Ray announces nodes that are drained (spot machines, autoscalers, `ray drain-node`). The driver writes a file to the
store, which works wherever checkpoints do.
"""

import threading
import time
from types import TracebackType

from phaseb.errors import PhasebError
from phaseb.runtime.storage import Store

FILE = "stop.json"
POLL_S = 1.0


class PreemptionListener:
    """Listens in a thread while the block runs, so that a step of the Ray Train worker never waits for storage."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._preempted = self._stop = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True, name="preemption")

    def __enter__(self) -> "PreemptionListener":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()

    def preemption_notice(self) -> bool:
        """Whether a node of this training will be taken away."""
        return self._preempted

    def stop_requested(self) -> bool:
        """Whether the driver asked for a checkpoint because it stops."""
        return self._stop

    def confirm_stop(self) -> None:
        """Say that the requested checkpoint is written."""
        self._store.delete(FILE)

    def _listen(self) -> None:
        while not self._end.wait(POLL_S):
            self._preempted = self._preempted or _node_is_draining()
            try:
                self._stop = self._stop or self._store.exists(FILE)
            except OSError:
                continue  # the request is read when storage is back


def request_stop(store: Store, timeout_s: float) -> bool:
    """Ask the first worker for a checkpoint; whether it wrote one in time."""
    deadline = time.monotonic() + timeout_s
    try:
        store.write_json({}, FILE)
        while time.monotonic() < deadline:
            if not store.exists(FILE):
                return True
            time.sleep(POLL_S / 5)
        store.delete(FILE)
    except (OSError, PhasebError):
        return False
    return False


def _node_is_draining() -> bool:
    """What Ray told this worker of drained nodes. `ray.train.get_preemption_info` asks all workers and waits for them,
    which a thread beside the training must not."""
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None
