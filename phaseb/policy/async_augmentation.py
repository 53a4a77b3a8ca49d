"""Rollouts made in a thread while the learner goes on (`augmentation.asynchronous`)."""

import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch

from phaseb.policy.actor import Actor
from phaseb.policy.augmentation import BranchedRollouts, Generation


class RolloutsBeside:
    """The learner's hook that does not keep it waiting: a generation is asked for at one refresh, and enters the replay
    at the first later one that finds it made. Until then none other is asked for.

    Batches then hang on how fast rollouts are made, so a run no longer reproduces to the bit, only within the spread of
    its seeds. The very first generation is waited for: without it a run that follows would learn from real rows alone,
    in a way that is not meant for them.

    The replay is touched by the learner's own thread only. What is still being made when training ends is dropped, as
    it is from checkpoints: a resumed learner asks anew.
    """

    def __init__(self, inner: BranchedRollouts) -> None:
        self._inner = inner
        self._thread = ThreadPoolExecutor(1, "rollouts")
        self._asked: tuple[int, Future[Generation]] | None = None
        self.followed = inner.followed

    def generate(self, step: int, actors: Sequence[Actor]) -> Mapping[str, float]:
        """Take in what has been made, and ask for the next; the metric `behind` tells how many learner steps old what
        comes in is.

        Raises:
            Exception: whatever the making of the last generation raised.
        """
        if self._inner.num_kept == 0 or not self.followed:
            return self._inner.generate(step, actors)
        metrics: dict[str, float] = {}
        if self._asked is not None and self._asked[1].done():
            (asked_at, made), self._asked = self._asked, None
            metrics = self._inner.put(made.result()) | {"behind": float(step - asked_at)}
        if self._asked is None:
            self._asked = step, self._thread.submit(self._make, step, actors)
        return metrics

    def wait(self, limit_s: float | None = None) -> None:
        """Until what was asked for is made, or the limit is over."""
        if self._asked is not None:
            wait([self._asked[1]], limit_s)

    def _make(self, step: int, actors: Sequence[Actor]) -> Generation:
        # Marked, since made again after a resume it may be another generation, whose rows must not mix with these.
        with torch.no_grad():
            return self._inner.make(step, actors, f"~{uuid.uuid4().hex[:8]}")

    def state_dict(self) -> dict[str, Any]:
        return self._inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._asked = None
        self._inner.load_state_dict(state)
