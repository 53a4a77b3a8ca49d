"""Write checkpoints in a thread: a step waits for a copy in memory, not for storage.

A checkpoint that cannot be written (storage away or full) is logged and left out; the one before it stays whole. Only
the last one must be written.
"""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWritingError
from types import TracebackType

from phaseb.errors import PhasebError
from phaseb.runtime import logs
from phaseb.runtime.checkpoint import flatten, pack_checkpoint, write_checkpoint
from phaseb.runtime.storage import Store
from phaseb.training.learner import Learner
from phaseb.training.prometheus import Meters
from phaseb.training.training_state import Progress

RETRY_S = 5.0
"""How old the writing of a checkpoint may be for the next one to wait for it, before that is left out."""


class AsyncCheckpointer:
    """Writes one training's checkpoints, one at a time.

    Attributes:
        saved_step: steps that the newest checkpoint on storage has behind it.
        blocked_s: seconds that training waited for checkpoints so far.
    """

    def __init__(self, store: Store, key: str, saved_step: int, meters: Meters) -> None:
        self._store, self._key, self._meters = store, key, meters
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._began_s = 0.0
        self.saved_step = saved_step
        self.blocked_s = 0.0

    def __enter__(self) -> "AsyncCheckpointer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)

    def save(self, learner: Learner, progress: Progress) -> None:
        """Begin a checkpoint of this moment; left out where the one before it is still not written."""
        started = time.monotonic()
        if self._free(max(0.0, self._began_s + RETRY_S - started)):
            packed = self._pack(learner, progress)
            self._began_s = time.monotonic()
            self._writing = self._thread.submit(self._write, *packed, progress.next_step)
        else:
            logs.event("checkpoint left out: storage is slow", logging.WARNING, step=progress.next_step)
            self._meters.failed()
        self._waited(started)

    def save_final(self, learner: Learner, progress: Progress) -> None:
        """Write a checkpoint of this moment and return when it is on storage.

        Raises:
            PhasebError: where it cannot be written.
        """
        started = time.monotonic()
        self._free(None)
        packed = self._pack(learner, progress)
        write_checkpoint(self._store, *packed)
        self._saved(progress.next_step, started)
        self._waited(started)

    def wait(self) -> int:
        """Wait for what is being written; returns the step of the newest checkpoint."""
        self._free(None)
        return self.saved_step

    def _free(self, patience_s: float | None) -> bool:
        """Whether nothing is being written any more."""
        if self._writing is None:
            return True
        try:
            self._writing.result(patience_s)
        except StillWritingError:
            return False
        self._writing = None
        return True

    def _pack(self, learner: Learner, progress: Progress) -> tuple[bytes, dict[str, object]]:
        tensors, rest = flatten(learner.state_dict())
        return pack_checkpoint(tensors, {"key": self._key, **progress.to_json(), "rest": rest})

    def _write(self, blob: bytes, meta: dict[str, object], step: int) -> None:
        started = time.monotonic()
        try:
            write_checkpoint(self._store, blob, meta)
        except PhasebError as error:
            logs.event("checkpoint not written", logging.WARNING, step=step, reason=str(error))
            self._meters.failed()
        else:
            self._saved(step, started)

    def _saved(self, step: int, started: float) -> None:
        self.saved_step = step
        self._meters.saved(time.monotonic() - started)
        logs.event("checkpoint", step=step, seconds=round(time.monotonic() - started, 3))

    def _waited(self, started: float) -> None:
        self.blocked_s += time.monotonic() - started
