"""The mailbox of a resident group, without Ray: what is given, taken and told, in any order."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from phaseb.training.mailbox import Mailbox

SOON_S = 0.05


def waits(call: "asyncio.Task[Any]") -> bool:
    return not call.done()


async def begun(call: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """A call that had the time to come as far as it can."""
    task = asyncio.create_task(call)
    await asyncio.sleep(SOON_S)
    return task


def test_a_training_is_taken_by_every_worker_and_its_end_told_to_the_driver():
    async def story() -> None:
        mailbox = Mailbox(3)
        workers = [await begun(mailbox.take(0)) for _ in range(2)]
        assert all(map(waits, workers))
        driver = await begun(mailbox.give(1, ["job"]))
        assert [await worker for worker in workers] == [(1, ["job"])] * 2
        assert waits(driver)
        first = await begun(mailbox.take(1, [None]))
        assert await driver is None
        second = await begun(mailbox.take(1))
        assert waits(first)
        assert waits(second)
        await mailbox.close()
        assert await first is None
        assert await second is None

    asyncio.run(story())


def test_who_comes_in_the_place_of_a_lost_worker_is_given_what_is_under_way():
    async def story() -> None:
        mailbox = Mailbox(3)
        await begun(mailbox.give(1, ["job"]))
        assert await mailbox.take(0) == (1, ["job"])
        assert await mailbox.take(0) == (1, ["job"])
        await mailbox.ended(1, None)
        assert waits(await begun(mailbox.take(0)))  # there is nothing under way any more

    asyncio.run(story())


def test_a_users_error_comes_back_and_the_next_training_is_taken():
    async def story() -> None:
        mailbox, error = Mailbox(3), ValueError("no")
        driver = await begun(mailbox.give(1, ["bad"]))
        worker = await begun(mailbox.take(1, [error]))
        assert await driver is error
        await begun(mailbox.give(2, ["good"]))
        assert await worker == (2, ["good"])

    asyncio.run(story())


@pytest.mark.parametrize("driver_first", [True, False])
def test_a_mailbox_that_was_killed_learns_all_from_the_calls_that_are_repeated(driver_first):
    """The worker had told the end; neither its call nor the driver's was answered."""

    async def story() -> None:
        mailbox = Mailbox(3)
        calls = [mailbox.give(1, ["job"]), mailbox.take(1, [None])]
        made = [await begun(call) for call in (calls if driver_first else reversed(calls))]
        driver, worker = made if driver_first else reversed(made)
        assert await driver is None
        assert waits(worker)
        assert waits(await begun(mailbox.take(0)))

    asyncio.run(story())


def test_losses_are_counted_for_each_training():
    async def story() -> None:
        mailbox = Mailbox(1)
        await begun(mailbox.give(1, ["job"]))
        assert [await mailbox.lost(), await mailbox.lost()] == [True, False]
        await mailbox.ended(1, None)
        await begun(mailbox.give(2, ["job"]))
        assert await mailbox.lost()
        await mailbox.close()
        assert not await mailbox.lost()

    asyncio.run(story())
    assert asyncio.run(Mailbox(-1).lost())
