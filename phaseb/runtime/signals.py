"""Requests to stop: SIGTERM, which Slurm, Kubernetes and spot machines send before they take a machine away.

A training finishes its step, writes a checkpoint and stops. Any other work stops at once, since its finished parts are
on storage. Both end with a KeyboardInterrupt, and the same command goes on from there.
"""

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

EXIT_CODE = 143
"""The exit code of a process that ended on SIGTERM."""

_requested = threading.Event()
_deferring = 0


def shutdown_requested() -> bool:
    """Whether this process has been asked to stop."""
    return _requested.is_set()


@contextmanager
def handle_sigterm() -> Iterator[None]:
    """Within the block, SIGTERM asks this process to stop. Does nothing outside of the main thread."""
    with _handle(signal.SIGTERM):
        yield


@contextmanager
def handle_interrupt() -> Iterator[None]:
    """Within the block, `interrupt` asks this process to stop. Requests to earlier tasks of it are forgotten."""
    _requested.clear()
    with _handle(signal.SIGINT):
        yield


def interrupt() -> None:
    """Ask this process to stop, from any of its threads."""
    _thread.interrupt_main()


@contextmanager
def defer_shutdown() -> Iterator[Callable[[], bool]]:
    """Within the block, the first request interrupts nothing: the block asks the yielded function and stops itself."""
    global _deferring
    _deferring += 1
    try:
        yield shutdown_requested
    finally:
        _deferring -= 1


@contextmanager
def _handle(number: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.signal(number, _request)
    try:
        yield
    finally:
        signal.signal(number, before if before is not None else signal.SIG_DFL)


def _request(number: int, frame: FrameType | None) -> None:
    again = _requested.is_set()
    _requested.set()
    if again or not _deferring:
        raise KeyboardInterrupt
