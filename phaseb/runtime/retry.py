"""What passes by itself is waited for: storage that does not answer for a while must not end a run of three days."""

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

ResultT = TypeVar("ResultT")

RETRY_S = 120.0
"""How long storage that does not answer is asked again before its error counts."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0

TRANSIENT_ERRNOS = {
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ESTALE,
    errno.EAGAIN,
}
TRANSIENT_WORDS = (
    "NETWORK_CONNECTION",
    "SLOW_DOWN",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "REQUEST_TIMEOUT",
    "THROTTLING",
    "curlCode",
    "timed out",
    "Timeout was reached",
    "Connection refused",
    "Connection reset",
    "HTTP response code 503",
    "HTTP response code 500",
    "HTTP response code 502",
    "HTTP response code 504",
)
"""What pyarrow's filesystems say of a server that is away or overloaded (they give no error number)."""


def is_transient(error: OSError) -> bool:
    """Whether an error of a filesystem may be gone in a minute: a server away, not a missing file or a full disk."""
    if isinstance(error, FileNotFoundError | PermissionError | FileExistsError | NotADirectoryError):
        return False
    if isinstance(error, ConnectionError | TimeoutError) or error.errno in TRANSIENT_ERRNOS:
        return True
    return any(word in str(error) for word in TRANSIENT_WORDS)


@contextmanager
def retry_deadline(seconds: float) -> Iterator[None]:
    """Within it, storage that does not answer is given up sooner or later than usual."""
    global RETRY_S
    before, RETRY_S = RETRY_S, seconds
    try:
        yield
    finally:
        RETRY_S = before


def retry_transient(work: Callable[[], ResultT], what: str) -> ResultT:
    """Do work on storage, again and again while its error is one that passes; the work must bear being repeated.

    Raises:
        OSError: what the storage said, at once where it does not pass, else after `RETRY_S`.
    """
    deadline, pause_s = time.monotonic() + RETRY_S, FIRST_PAUSE_S
    while True:
        try:
            return work()
        except OSError as error:
            if not is_transient(error) or time.monotonic() + pause_s > deadline:
                raise
            logging.getLogger("phaseb").warning(
                "storage does not answer; trying again", extra={"fields": {"path": what, "reason": str(error)[:200]}}
            )
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
