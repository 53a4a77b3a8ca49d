"""One process at a time works in a run directory, on any storage: who comes second is told who is there.

Object stores rename and link nothing, and pyarrow writes nothing on a condition. So the lock is Lamport's bakery: each
process writes a claim under a key of its own, reads the claims that are there, and the lowest number has the folder.
All that it needs is that a listing shows what was written before, which local disks and today's object stores give.

A claim of a process that died is recognised: on the same host by its process id and start time, elsewhere because its
beat stands still.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from phaseb.errors import ConfigError, DataError, PhasebError
from phaseb.runtime import logs
from phaseb.runtime.storage import Store

FOLDER = ".lock"
BEAT_S = 10.0
SILENCE_S = 45.0
"""A claim from another host whose beat stands still for that long is a dead process's."""
LOOK_S = 0.5

_held: dict[tuple[str, str], int] = {}
_guard = threading.Lock()


@dataclass(frozen=True)
class Owner:
    """Whose claim it is.

    Attributes:
        host: name of the machine or container.
        place: what tells apart machines of one name: boot and process namespace.
        pid: of the process.
        born: when the process started, in the kernel's ticks; a number used again belongs to another process.
        since: when the claim was made, UTC.
    """

    host: str
    place: str
    pid: int
    born: str
    since: str

    @classmethod
    def this_process(cls) -> "Owner":
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), _place(), os.getpid(), _born(os.getpid()) or "", now)

    def is_here(self) -> bool:
        """Whether it is a process of this very machine and namespace."""
        return (self.host, self.place) == (socket.gethostname(), _place())

    def is_alive(self) -> bool:
        """Whether the process still runs; only asked of processes that are here."""
        born = _born(self.pid)
        return _answers(self.pid) if born is None else born == self.born

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def run_lock(place: str | Store) -> Iterator[None]:
    """Hold a run directory; a process that holds it already may hold it again.

    A folder that cannot be written is not locked: the run itself says what is wrong with it.

    Raises:
        ConfigError: where a living process holds it, naming host, process and since when.
    """
    store = Store.of(place)
    key = (store.filesystem.type_name, store.root)
    with _guard:
        again = key in _held
        _held[key] = _held.get(key, 0) + 1
    claim = None
    try:
        claim = None if again else _claim(store)
        yield
    finally:
        if claim is not None:
            claim.release()
        with _guard:
            _held[key] -= 1
            if not _held[key]:
                del _held[key]


def _claim(store: Store) -> "_Claim | None":
    claim = _Claim(store.folder(FOLDER))
    try:
        claim.take()
    except ConfigError:
        claim.release()
        raise
    except (PhasebError, OSError) as error:
        logs.event("the run directory is not locked", folder=store.root, reason=str(error))
        claim.release()
        return None
    claim.keep_alive()
    return claim


class _Claim:
    """A file of its own in the lock's folder: `entering` while its number is chosen, then `number`, and a `beat`."""

    def __init__(self, folder: Store) -> None:
        self.folder, self.name, self.owner = folder, f"{uuid.uuid4().hex}.json", Owner.this_process()
        self._number, self._beat = 0, 0
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        """Raises ConfigError where another living process comes first."""
        self._write()
        numbers = [int(other["number"]) for other in self._others().values()]
        self._number = 1 + max(numbers, default=0)
        self._write()
        for name, other in self._others().items():
            self._give_way_to(name, other)

    def keep_alive(self) -> None:
        self._thread = threading.Thread(target=self._keep_alive, daemon=True, name="run-lock")
        self._thread.start()

    def release(self) -> None:
        """Take the claim back; what cannot be deleted is recognised as stale later."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(timeout=BEAT_S)
        try:
            self.folder.delete(self.name)
            if self.folder.is_local:
                os.rmdir(self.folder.root)
        except OSError:
            return  # not empty: others wait, or left their claims

    def _give_way_to(self, name: str, other: Mapping[str, Any]) -> None:
        """Wait until it is known whether another claim comes first; raise where it does and its process lives."""
        first_beat, since = other["beat"], time.monotonic()
        owner = _owner(other)
        while True:
            comes_first = not other["entering"] and (other["number"], name) < (self._number, self.name)
            moved = other["beat"] != first_beat
            silent = time.monotonic() - since > SILENCE_S
            if (owner.is_here() and not owner.is_alive()) or (silent and not owner.is_here() and not moved):
                return self.folder.delete(name)
            if (comes_first and (moved or owner.is_here())) or silent:
                raise ConfigError(
                    f"{self.folder.root.rpartition('/')[0]} is in use by {owner}; wait for it to end, stop it, or "
                    "choose another run.dir"
                )
            if not other["entering"] and not comes_first:
                return None
            time.sleep(LOOK_S)
            found = self._read(name)
            if found is None:
                return None
            other = found

    def _others(self) -> dict[str, dict[str, Any]]:
        found = {name: self._read(name) for name in self.folder.names(suffix=".json") if name != self.name}
        return {name: other for name, other in found.items() if other is not None}

    def _read(self, name: str) -> dict[str, Any] | None:
        """A claim; None where it has gone, or is none."""
        try:
            tree = self.folder.read_json(name)
            _owner(tree)
            return dict(tree) if {"entering", "number", "beat"} <= set(tree) else None
        except (DataError, KeyError, TypeError, ValueError):
            return None

    def _write(self) -> None:
        claim = {**asdict(self.owner), "entering": not self._number, "number": self._number, "beat": self._beat}
        try:
            self.folder.write_json(claim, self.name)
        except PhasebError:  # whoever left last removed the folder meanwhile
            self.folder.write_json(claim, self.name)

    def _keep_alive(self) -> None:
        while not self._end.wait(BEAT_S):
            self._beat += 1
            try:
                self._write()
            except (PhasebError, OSError) as error:
                logs.event("the run directory's lock is not renewed", logging.WARNING, reason=str(error)[:200])


def _owner(tree: Mapping[str, Any]) -> Owner:
    return Owner(str(tree["host"]), str(tree["place"]), int(tree["pid"]), str(tree["born"]), str(tree["since"]))


def _place() -> str:
    """Boot and process namespace, where the kernel tells them."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; "gone" for a zombie; None where the kernel does not show it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return "gone" if fields[0] in ("Z", "X") else fields[19]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
