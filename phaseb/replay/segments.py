"""Runs of transitions on their way: into a ring, into a file, from one shard to another.

E segments of together M rows; a segment of T transitions takes T + 1 rows, the last of which is its closing
observation alone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phaseb.config.policy import ReplayConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.replay.schema import TransitionSchema

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

Source = Literal["real", "synthetic"]
SOURCES: tuple[Source, ...] = ("real", "synthetic")
ROWS_CHECKED_TOGETHER = 2048  # they stay in the cache between two looks


@dataclass(frozen=True)
class Segments:
    """Attributes:
    schema: the columns of `rows`.
    rows: (M, W) float32 records.
    lengths: (E,) transitions of each segment.
    codes: (E,) its episode's code (`episode_code`).
    first_steps: (E,) step of the episode at which it begins.
    sources: (E,) uint8 index into SOURCES.
    """

    schema: TransitionSchema
    rows: Floats
    lengths: Integers
    codes: Integers
    first_steps: Integers
    sources: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_transitions(self) -> int:
        return int(self.lengths.sum())

    @property
    def starts(self) -> Integers:
        """(E,) row at which each segment begins."""
        return np.cumsum(self.lengths + 1) - (self.lengths + 1)

    def check(self) -> None:
        """Raises DataError where anything would spoil a buffer: shapes, NaN or Inf, negative weights."""
        rows, schema = self.rows, self.schema
        if rows.ndim != 2 or rows.shape[1] != schema.width or rows.dtype != np.float32:
            raise DataError(f"transitions are {rows.dtype}{rows.shape}, wanted float32 rows of {schema.width}")
        if any(len(a) != len(self) for a in (self.codes, self.first_steps, self.sources)):
            raise DataError("segments differ in number between lengths, codes, first_steps and sources")
        if (self.lengths < 1).any() or int((self.lengths + 1).sum()) != len(rows):
            raise DataError(f"segment lengths (each + 1) do not add up to {len(rows)} rows, or one is empty")
        if (self.first_steps < 0).any() or (self.sources >= len(SOURCES)).any():
            raise DataError("a segment begins before step 0 or has an unknown source")
        for begin in range(0, len(rows), ROWS_CHECKED_TOGETHER):
            _check_numbers(schema, rows[begin : begin + ROWS_CHECKED_TOGETHER], begin)

    def select(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> "Segments":
        """The segments at `index`, in that order."""
        chosen = np.flatnonzero(index) if index.dtype == bool else np.asarray(index, dtype=np.int64)
        if len(chosen) == len(self) and (chosen == np.arange(len(self))).all():
            return self
        return self.cut(chosen, np.zeros(len(chosen), dtype=np.int64), self.lengths[chosen])

    def cut(self, index: Integers, begin: Integers, lengths: Integers) -> "Segments":
        """For each i the `lengths[i]` transitions of segment `index[i]` from its transition `begin[i]` on."""
        starts = self.starts[index] + begin
        sizes = lengths + 1
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = np.repeat(starts, sizes) + within
        return Segments(
            self.schema,
            self.rows[rows],
            lengths,
            self.codes[index],
            self.first_steps[index] + begin,
            self.sources[index],
        )


def _check_numbers(schema: TransitionSchema, rows: Floats, begin: int) -> None:
    """Raises DataError for NaN, Inf or negative weights in rows that begin at row `begin` of their segments."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = rows.sum()  # NaN and Inf survive a sum: one pass without a temporary
    if not np.isfinite(total) and not np.isfinite(rows).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        where = f"first in row {begin + row}, column {column}"
        raise DataError(f"transitions have NaN or Inf, {where}; nothing was inserted")
    for name in schema.weights:
        if rows[:, schema.weight(name)].min(initial=0.0) < 0:
            raise DataError(f"weights {name!r} must not be negative; nothing was inserted")


def join(parts: Sequence[Segments]) -> Segments:
    """Several sets of segments as one."""
    if len(parts) == 1:
        return parts[0]
    return Segments(
        parts[0].schema,
        np.concatenate([p.rows for p in parts]),
        np.concatenate([p.lengths for p in parts]),
        np.concatenate([p.codes for p in parts]),
        np.concatenate([p.first_steps for p in parts]),
        np.concatenate([p.sources for p in parts]),
    )


def episode_code(episode: str, source: Source, model: str = "") -> int:
    """A 63-bit name of (episode, source, model digest): with a step, what makes a transition unique."""
    text = f"{source}\x1f{model}\x1f{episode}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def episode_codes(trajectories: Trajectories, source: Source) -> Integers:
    """(N,) the codes of all episodes (the model digest comes from the lineage)."""
    models = trajectories.lineage.get("model", ("",) * len(trajectories))
    codes = [episode_code(name, source, model) for name, model in zip(trajectories.ids, models, strict=True)]
    return np.array(codes, dtype=np.int64)


def from_trajectories(
    trajectories: Trajectories,
    schema: TransitionSchema,
    source: Source,
    columns: Mapping[str, NDArray[np.floating] | NDArray[np.bool_]] | None = None,
) -> Segments:
    """Latent episodes as segments, one each.

    Args:
        trajectories: N episodes of up to T steps. Where unscored or ungated, real transitions get trust and weights
            of 1, synthetic ones of 0: nothing synthetic is trusted by default.
        schema: the buffer's.
        source: theirs, all of them.
        columns: further weight columns by name, (N,) an episode or (N, T) a transition; booleans count 0 and 1.

    Raises:
        DataError: where sizes differ from the schema's, or a column is named that it has not.
    """
    num, steps = trajectories.rewards.shape
    sizes = (trajectories.z.shape[-1], trajectories.actions.shape[-1])
    if sizes != (schema.latent_size, schema.action_size):
        raise DataError(
            f"{source} trajectories have {sizes[0]} latents and {sizes[1]} actions; "
            f"the replay buffer holds {schema.latent_size} and {schema.action_size}"
        )
    given: dict[str, NDArray[np.floating] | NDArray[np.bool_]] = dict(columns or {})
    if trajectories.weights is not None:
        given.setdefault("weight", trajectories.weights)
    for name in given:
        if name in (columns or {}):
            schema.weight(name)
    default = 1.0 if source == "real" else 0.0
    table = np.zeros((num, steps + 1, schema.width), dtype=np.float32)
    table[..., : schema.latent_size] = trajectories.z
    table[:, :-1, schema.action] = trajectories.actions
    table[:, :-1, schema.reward] = trajectories.rewards
    table[:, :-1, schema.terminal] = trajectories.terminals
    last = np.arange(steps) == trajectories.lengths[:, None] - 1
    table[:, :-1, schema.cut] = last & (trajectories.terminals == 0)
    table[:, :-1, schema.trust] = default if trajectories.trust is None else trajectories.trust
    table[:, :-1, schema.uncertainty] = 0.0 if trajectories.uncertainty is None else trajectories.uncertainty
    for name in schema.weights:
        value = given.get(name)
        spread = default if value is None else (value[:, None] if value.ndim == 1 else value)
        table[:, :-1, schema.weight(name)] = spread
    lengths = trajectories.lengths.astype(np.int64)
    # The row behind an episode's last transition is an observation only, whatever its arrays are padded with.
    table[np.arange(num), lengths, schema.latent_size :] = 0.0
    kept = np.arange(steps + 1)[None] <= lengths[:, None]
    return Segments(
        schema=schema,
        rows=table.reshape(-1, schema.width) if kept.all() else table[kept],
        lengths=lengths,
        codes=episode_codes(trajectories, source),
        first_steps=np.zeros(num, dtype=np.int64),
        sources=np.full(num, SOURCES.index(source), dtype=np.uint8),
    )


def route(segments: Segments, num_shards: int) -> dict[int, Segments]:
    """Segments by the shard that their episode belongs to; shards that get none are absent."""
    if num_shards == 1:
        return {0: segments} if len(segments) else {}
    shard = segments.codes % num_shards
    return {int(k): segments.select(shard == k) for k in np.unique(shard)}


def rows_per_shard(config: ReplayConfig) -> int:
    """The rows that one shard has for each source: its part of the capacity."""
    return max(-(-config.capacity // config.num_shards), 2)


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


def require_transitions(num_transitions: int) -> None:
    """Raises DataError where the buffer is empty."""
    if not num_transitions:
        raise DataError("the replay buffer is empty; insert transitions before a batch is drawn")
