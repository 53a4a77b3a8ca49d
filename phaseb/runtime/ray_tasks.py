"""Results of Ray tasks."""

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
