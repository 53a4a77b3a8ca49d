"""Which shard an episode belongs to, and what its transitions are called."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phaseb.config.policy import ReplayConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import SOURCES, Segments, Source, episode_codes

Integers = NDArray[np.int64]
Sizes = NDArray[np.int64]


def route(segments: Segments, num_shards: int) -> dict[int, Segments]:
    """Segments by the shard that their episode belongs to; shards that get none are absent."""
    if num_shards == 1:
        return {0: segments} if len(segments) else {}
    shard = segments.codes % num_shards
    return {int(k): segments.select(shard == k) for k in np.unique(shard)}


def with_room(schema: TransitionSchema, config: ReplayConfig, held: Sequence[Sizes]) -> ReplayConfig:
    """The config, with as much more capacity as it takes that every shard has room for the segments that fall to it.

    Args:
        held: the segments, (3, n) of source, code and rows.
    """
    source, code, rows = np.concatenate(held, axis=1)
    place = code % config.num_shards * len(SOURCES) + source
    needed = int(np.bincount(place, rows, minlength=1).max())
    if needed <= rows_per_shard(schema, config):
        return config
    update: dict[str, int] = {"capacity": max(config.capacity, needed * config.num_shards)}
    if config.capacity_bytes is not None:
        update["capacity_bytes"] = needed * config.num_shards * len(SOURCES) * schema.row_bytes
    return config.model_copy(update=update)


def rows_per_shard(schema: TransitionSchema, config: ReplayConfig) -> int:
    """The rows that one shard has for each source: its part of the capacity, in transitions or in bytes."""
    rows = -(-config.capacity // config.num_shards)
    if config.capacity_bytes is not None:
        rows = min(rows, config.capacity_bytes // config.num_shards // len(SOURCES) // schema.row_bytes)
    return max(rows, 2)


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
