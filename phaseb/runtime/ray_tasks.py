"""Results of Ray tasks."""

from collections.abc import Sequence
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


def cancel_tasks(references: Sequence[Any], timeout_s: float) -> None:
    """Interrupt tasks and wait until they have ended, at most `timeout_s` seconds."""
    for reference in references:
        ray.cancel(reference, recursive=False)
    if references:
        ray.wait(list(references), num_returns=len(references), timeout=timeout_s)
