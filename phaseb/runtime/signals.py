"""Word that this process must leave: SIGTERM, which Slurm, Kubernetes and spot machines send before a machine is taken.

A training in this process finishes its step, writes a checkpoint and leaves; any other work is left at once, since
what it had finished is on storage. Either way it ends as an interrupt does, and the same command goes on from there.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

EXIT_CODE = 143
"""What a shell says of a process that ended on SIGTERM."""

_given = threading.Event()
_deferring = 0


def given() -> bool:
    """Whether this process was told to leave."""
    return _given.is_set()


@contextmanager
def heard() -> Iterator[None]:
    """Within, a SIGTERM is a notice. (Signals reach the main thread only: elsewhere nothing changes.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.signal(signal.SIGTERM, _hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within, a first notice interrupts nothing: whoever entered looks at `given` and leaves when it is convenient."""
    global _deferring
    _deferring += 1
    try:
        yield given
    finally:
        _deferring -= 1


def _hear(number: int, frame: FrameType | None) -> None:
    again = _given.is_set()
    _given.set()
    if again or not _deferring:
        raise KeyboardInterrupt
