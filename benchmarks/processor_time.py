"""Processor time of a process and of all that it starts, however deep, as long as it runs."""

import threading
from types import TracebackType
from typing import Self

import psutil

PERIOD_S = 1.0


class ProcessorTime:
    """Watch a process and its descendants; `seconds` is the processor time that they used.

    Every process is asked each second, and its last answer counts. So less than a second of each is missed.
    """

    def __init__(self, pid: int) -> None:
        self._root, self._used = pid, dict[tuple[int, float], float]()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    @property
    def seconds(self) -> float:
        return sum(self._used.values())

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        known: dict[tuple[int, float], psutil.Process] = {}
        while not self._over.is_set():
            try:
                root = psutil.Process(self._root)
                for process in (root, *root.children(recursive=True)):
                    known[process.pid, process.create_time()] = process
            except psutil.NoSuchProcess:
                pass
            for key, process in list(known.items()):
                try:
                    times = process.cpu_times()
                    self._used[key] = times.user + times.system
                except psutil.NoSuchProcess:
                    del known[key]
            self._over.wait(PERIOD_S)
