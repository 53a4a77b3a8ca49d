"""The processes that a test has started: tests count, watch and kill no others."""

import contextlib

import psutil


def descendants(title: str) -> set[int]:
    """Return the process ids of this process's living descendants whose command line holds `title`.

    Processes that end while they are looked at are left out.
    """
    found = set[int]()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE and title in " ".join(process.cmdline()):
                found.add(process.pid)
    return found
