"""Requests that reach a training from outside: its node will be taken away, or its driver stops.

Ray announces nodes that are drained (spot machines, autoscalers, `ray drain-node`). The driver writes a file to the
store, which works wherever checkpoints do.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import ray

from phaseb.errors import PhasebError
from phaseb.runtime import logs, signals
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


@contextmanager
def stopped_by_request(store: Store, file: str = FILE) -> Iterator[None]:
    """Within the block, a request by `stop_tasks` interrupts the main thread of this Ray task as SIGTERM would.

    `ray.cancel` is no alternative: Ray 2.60 aborts the driver where a task ends while it is being cancelled ("Tried to
    complete task that was not pending").
    """
    end = threading.Event()
    thread = threading.Thread(target=_interrupt_on_request, args=(store, file, end), daemon=True, name="stop")
    with signals.handle_interrupt():
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()


def stop_tasks(references: Sequence[Any], requests: Sequence[tuple[Store, str]], timeout_s: float) -> None:
    """Ask Ray tasks to stop and wait until they have ended, at most `timeout_s` seconds.

    Args:
        references: of the tasks.
        requests: the store and the file that each was given in `stopped_by_request`.
        timeout_s: for all of them together.
    """
    if not references:
        return
    for store, file in requests:
        try:
            store.write_json({}, file)
        except PhasebError as error:
            logs.event("a task cannot be asked to stop", logging.WARNING, reason=str(error))
    ray.wait(list(references), num_returns=len(references), timeout=timeout_s)


def _interrupt_on_request(store: Store, file: str, end: threading.Event) -> None:
    while not end.is_set():
        try:
            if store.exists(file):
                signals.interrupt()
                return
        except OSError:
            pass  # the request is read when storage is back
        end.wait(POLL_S)


def _node_is_draining() -> bool:
    """What Ray told this worker of drained nodes. `ray.train.get_preemption_info` asks all workers and waits for them,
    which a thread beside the training must not."""
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None
