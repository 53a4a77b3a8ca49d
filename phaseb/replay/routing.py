"""Which shard an episode belongs to, and what its transitions are called."""

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.replay.segments import Segments, Source, episode_codes

Integers = NDArray[np.int64]


def route(segments: Segments, num_shards: int) -> dict[int, Segments]:
    """Segments by the shard that their episode belongs to; shards that get none are absent."""
    if num_shards == 1:
        return {0: segments} if len(segments) else {}
    shard = segments.codes % num_shards
    return {int(k): segments.select(shard == k) for k in np.unique(shard)}


def transition_keys(
    trajectories: Trajectories, source: Source, values: NDArray[np.floating]
) -> tuple[Integers, Integers, NDArray[np.float32]]:
    """(codes, steps, values) of all transitions of episodes, flat.

    Raises:
        DataError: where `values` is not (N, T).
    """
    if values.shape != trajectories.rewards.shape:
        raise DataError(f"weights are {values.shape}, wanted {trajectories.rewards.shape} (episodes, steps)")
    episode, step = np.nonzero(trajectories.mask)
    return episode_codes(trajectories, source)[episode], step, values[episode, step].astype(np.float32)


def require_size(num_transitions: int, min_size: int) -> None:
    """Raises DataError where the buffer may not be sampled yet."""
    if num_transitions < min_size:
        raise DataError(
            f"the replay buffer holds {num_transitions} transitions and replay.min_size is {min_size}; "
            "insert more or lower it"
        )
