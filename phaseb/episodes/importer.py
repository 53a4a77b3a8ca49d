"""Import: episodes of any source into shards with splits, in parallel and never all in memory."""

import json
from collections.abc import Callable, Sequence

import numpy as np

from phaseb.config.data import EpisodesConfig
from phaseb.config.run import ResourcesConfig
from phaseb.episodes.actor_pool import run_pool
from phaseb.episodes.cameras import COLOURS
from phaseb.episodes.control import Control
from phaseb.episodes.control_source import ControlSource, OpenRecordings, open_recordings
from phaseb.episodes.episode import Split
from phaseb.episodes.inventory import Inventory
from phaseb.episodes.parquet_file import read_stamp
from phaseb.episodes.shards import clear_shards, shard_name, write_shard
from phaseb.episodes.sources import fingerprints, inventory_of, lengths_of_source, open_source
from phaseb.episodes.tasks import Tasks
from phaseb.errors import DataError
from phaseb.runtime.seeding import derive_seed
from phaseb.runtime.storage import Store

SHARD_BYTES = 2**25
"""Bytes of frames in one shard, about."""


def import_episodes(
    config: EpisodesConfig,
    target: Store,
    seed: int,
    resources: ResourcesConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    counted: Callable[[Inventory], None] | None = None,
    known: Control | None = None,
) -> list[str]:
    """Read all episodes of `config.source` into shards of `config.rows_per_shard`, each with its split.

    A killed import goes on where it stopped, as long as the data and the settings are the same. Bad data leave
    nothing behind.

    Args:
        config: the source, its columns, and the splits.
        target: the folder to fill; other shards in it are deleted.
        seed: of the splits.
        resources: actors that read, as for `map_shards`.
        progress: called with (shards done, all shards) after each.
        counted: called with what the source holds and leaves out.
        known: how an earlier import of the same run made steps of rows.

    Returns:
        the names of the shards.

    Raises:
        DataError: for whatever is wrong with the data, naming file and episode.
    """
    opened = open_recordings(config, seed, known)
    source, roles = opened.source, opened.roles
    rows = episodes_of_shard(config, lengths_of_source(source))
    steps = (source.control, source.kept) if isinstance(source, ControlSource) else None
    total = -(-len(roles) // rows)
    names = [shard_name(i, total) for i in range(total)]
    chosen = "" if steps is None else json.dumps(steps[0].to_json())
    chosen += json.dumps(opened.tasks) if opened.tasks else ""
    stamp = f"{derive_seed(seed, config.model_dump_json() + chosen):x}-{fingerprints(config)}"
    todo = [name for name in names if read_stamp(target, name) != stamp]
    clear_shards(target, keep=set(names) - set(todo))
    try:
        finished = run_pool(todo, ImportWork, (config, target, roles, stamp, rows, steps, opened.tasks), resources)
        for done, _ in enumerate(finished, start=total - len(todo) + 1):
            if progress is not None:
                progress(done, total)
        if counted is not None:
            counted(inventory_of(source))
    except DataError:
        clear_shards(target)
        raise
    return names


def episodes_of_shard(config: EpisodesConfig, lengths: Sequence[int] | None) -> int:
    """Episodes in one shard: `rows_per_shard`, or fewer where their frames would take more than SHARD_BYTES.

    A shard is held in memory. Where the size of frames or the lengths are not known, it has `rows_per_shard`.
    """
    side, cameras = config.columns.frame_side, len(config.columns.images)
    if not side or not lengths:
        return config.rows_per_shard
    frames = COLOURS * cameras * side**2 * (1 + float(np.mean(lengths)))
    return min(config.rows_per_shard, max(1, int(SHARD_BYTES / frames)))


class ImportWork:
    """Reads and writes one shard after another; called with the name of a shard."""

    def __init__(
        self,
        config: EpisodesConfig,
        target: Store,
        roles: Sequence[Split],
        stamp: str,
        rows: int,
        steps: tuple[Control, Sequence[int]] | None,
        tasks: Tasks = (),
    ) -> None:
        source = open_source(config)
        in_steps = source if steps is None else ControlSource(source, config.columns.step_s, *steps)
        self._opened = OpenRecordings(in_steps, list(roles), tasks=tasks)
        self._target, self._stamp, self._rows = target, stamp, rows

    def __call__(self, name: str) -> None:
        first = int(name.split("-")[1]) * self._rows
        rows = range(first, min(first + self._rows, len(self._opened.roles)))
        write_shard(self._target, name, list(self._opened.read(rows)), self._stamp)
