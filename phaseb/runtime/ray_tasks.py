"""Results of Ray tasks."""

from collections.abc import Callable, Sequence
from typing import Any

import ray

from phaseb.errors import PhasebError


def get_result(reference: Any) -> Any:
    """The result of a Ray task; a user's error raised in it comes back as itself, not as Ray's."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, PhasebError):
            raise error.cause from None
        raise


def results_of(
    begin: Sequence[Callable[[], Any]], max_concurrent: int, on_done: Callable[[int, Any], None] | None = None
) -> list[Any]:
    """The results of Ray tasks in their order, of which so many at most are begun before one has ended.

    Few that wait leave room for the tasks of other stages, which Ray would serve after all that were begun earlier.

    Args:
        begin: starts a task and returns its reference.
        on_done: called with the place and the result of each task that ended.
    """
    found: list[Any] = [None] * len(begin)
    running: dict[Any, int] = {}
    for place, start in enumerate(begin):
        if len(running) == max_concurrent:
            _take_one(running, found, on_done)
        running[start()] = place
    while running:
        _take_one(running, found, on_done)
    return found


def _take_one(running: dict[Any, int], found: list[Any], on_done: Callable[[int, Any], None] | None) -> None:
    (ended,), _ = ray.wait(list(running), num_returns=1)
    place = running.pop(ended)
    found[place] = get_result(ended)
    if on_done is not None:
        on_done(place, found[place])
