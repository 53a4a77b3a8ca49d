"""Flags of success, and the rewards that are made from them where none are recorded."""

from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phaseb.config.data import ColumnsConfig
from phaseb.errors import DataError

NO_REWARDS = (
    "neither rewards nor success flags are recorded, so every reward is 0 "
    "(name a column by episodes.columns.reward or episodes.columns.success if there is one)"
)


def success_flags(name: str, values: ArrayLike, num_actions: int) -> NDArray[np.bool_]:
    """Flags (T,) of the T steps of an episode.

    One flag of the whole episode counts at its last step. T + 1 flags go with the observations, so that flag t + 1
    is what action t reached.

    Raises:
        DataError: for other shapes, or for values that are neither 0 nor 1.
    """
    found = np.asarray(values)
    if found.dtype.kind not in "fiub" or not np.isin(found, (0, 1)).all():
        raise DataError(
            f"success flags {name!r} are of type {found.dtype} and hold more than 0 and 1: write flags, or set "
            "episodes.columns.success to a column of them"
        )
    if found.size == 1:
        flags = np.zeros(num_actions, bool)
        flags[-1:] = found.reshape(-1).astype(bool)
        return flags
    flat = found.reshape(-1).astype(bool)
    if found.size != len(found) or len(flat) not in (num_actions, num_actions + 1):
        raise DataError(
            f"success flags {name!r} have shape {found.shape}, wanted one for the episode or one for each of its "
            f"{num_actions} rows: set episodes.columns.success to another column"
        )
    if len(flat) == num_actions:
        return flat
    flags = flat[1:].copy()
    flags[0] |= flat[0]
    return flags


def success_rewards(flags: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Rewards (T,) of flags (T,): 1 at the first step that is flagged, else 0."""
    rewards = np.zeros(len(flags), np.float32)
    if flags.any():
        rewards[int(flags.argmax())] = 1
    return rewards


def reward_notes(columns: Collection[str], wanted: ColumnsConfig, reward: str, success: str) -> tuple[str, ...]:
    """A sentence on where rewards come from; none where they are recorded.

    Args:
        columns: that are recorded.
        wanted: the columns that the configuration names.
        reward, success: the format's names.
    """
    if wanted.reward or reward in columns:
        return ()
    flags = wanted.success or success
    if flags in columns:
        return (f"rewards are made from {flags}: 1 at an episode's first step that is flagged",)
    return (NO_REWARDS,)
