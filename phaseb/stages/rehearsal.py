"""`phaseb run --dry-run`: what a run would choose and need, without writing, training or starting anything."""

from dataclasses import replace

import numpy as np

from phaseb.collection.environments import make_environment, shown_by
from phaseb.config.data import COLLECTED
from phaseb.config.root import Config
from phaseb.episodes.control_source import open_recordings
from phaseb.episodes.inventory import summarise
from phaseb.episodes.sources import EpisodeSource, inventory_of
from phaseb.pipeline.dataset_stats import SPLITS, DataFacts, DatasetStats
from phaseb.pipeline.requirement import Preflight
from phaseb.pipeline.requirements import preflight
from phaseb.stages.collect import EnvironmentSpec, check_recordings, environment_spec


def rehearse(config: Config) -> Preflight:
    """Read the recordings of a config, or assume what it would collect, and check all stages against them.

    Raises:
        DataError: where recordings cannot be read, or are not of the environment.
        ConfigError: where the environment cannot be made.
    """
    if config.episodes.source in COLLECTED:
        return preflight(config, _assumed(config))
    opened = open_recordings(config.episodes, config.run.seed)
    source, spec = opened.source, environment_spec(config, opened.control, opened.tasks)
    seen = DatasetStats.of(opened.read(range(len(opened.roles))), spec and spec.bounds)
    return rehearse_recorded(config, spec, source, seen)


def rehearse_recorded(
    config: Config, spec: EnvironmentSpec | None, source: EpisodeSource, seen: DatasetStats
) -> Preflight:
    """Check all stages against recordings that were read.

    Args:
        spec: of the environment; None where there is none.
        source: of the recordings.
        seen: of its episodes, with their splits.

    Raises:
        DataError: where the recordings are not of the environment.
    """
    notes = [_inventory_line(source, seen), *check_recordings(config, spec, seen)[1]]
    found = preflight(config, replace(seen.facts(), environment=spec and spec.shown))
    return replace(found, notes=(*notes, *found.notes))


def _inventory_line(source: EpisodeSource, seen: DatasetStats) -> str:
    lengths = [steps for split in seen.lengths.values() for steps in split]
    return summarise(inventory_of(source), len(lengths), sum(lengths))


def _assumed(config: Config) -> DataFacts:
    """Episodes of full length, with what the environment shows."""
    counts = (config.episodes.num_train, config.episodes.num_dev, config.episodes.num_test)
    lengths = {s: np.full(n, config.environment.max_steps, dtype=np.int64) for s, n in zip(SPLITS, counts, strict=True)}
    environment = make_environment(config.environment, 1, None)
    if environment is None:
        return DataFacts(lengths, assumed=True)
    shown = shown_by(environment)
    environment.close()
    return DataFacts(lengths, **shown, assumed=True)
