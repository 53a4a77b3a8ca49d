"""Where the driver leaves trainings for a resident group of workers, and where these leave how they ended.

An actor of its own: it outlives workers that are killed, so that those that take their place find what is to be done.
Where it is killed itself, Ray starts it again and repeats the calls that it had not answered, which tell it all anew.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import ray

Outcome = Exception | None


class Mailbox:
    """One training at a time, by its number: the numbers of a group's trainings rise.

    Args:
        max_failures: how often one training is begun again after lost workers; -1: without limit.
    """

    def __init__(self, max_failures: int) -> None:
        self._changed = asyncio.Condition()
        self._max_failures, self._failures = max_failures, 0
        self._number, self._job = 0, list[Any]()
        self._ends: dict[int, Outcome] = {}
        self._over = False

    async def give(self, number: int, job: list[Any]) -> Outcome:
        """For the driver: leave a training and wait until it ended; the user's error that ended it, or None."""
        async with self._changed:
            if number not in self._ends:
                self._number, self._job, self._failures = number, job, 0
                self._changed.notify_all()
                await self._changed.wait_for(lambda: number in self._ends)
            return self._ends.pop(number)

    async def take(self, after: int, outcome: Sequence[Outcome] = ()) -> tuple[int, list[Any]] | None:
        """For a worker: wait for the training that follows number `after`; None where there will be no other.

        A worker that has done nothing yet (`after` 0) is given what is under way.

        Args:
            after: number of the last training it took.
            outcome: how that ended, where this worker is the one to tell.
        """
        if outcome:
            await self.ended(after, outcome[0])
        async with self._changed:
            await self._changed.wait_for(lambda: self._over or (bool(self._job) and self._number > after))
            return None if self._over else (self._number, self._job)

    async def ended(self, number: int, outcome: Outcome) -> None:
        """For a worker: a training is over."""
        async with self._changed:
            self._ends.setdefault(number, outcome)
            if number == self._number:
                self._job = []
            self._changed.notify_all()

    async def lost(self) -> bool:
        """For the group's controller: workers were lost; whether to begin again."""
        self._failures += 1
        return not self._over and (self._max_failures < 0 or self._failures <= self._max_failures)

    async def close(self) -> None:
        """For the driver: the workers may go."""
        async with self._changed:
            self._over = True
            self._changed.notify_all()


def open_mailbox(max_failures: int) -> Any:
    """A mailbox on this node, which a driver's loss ends."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 10_000}
    return ray.remote(Mailbox).options(scheduling_strategy=here, **options).remote(max_failures)
