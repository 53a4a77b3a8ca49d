"""`phaseb run --dry-run`: what a run would choose and need, without writing, training or starting anything."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from phaseb.collection.environments import make_environment, shown_by
from phaseb.config.data import COLLECTED, EpisodesConfig
from phaseb.config.root import Config
from phaseb.episodes.episode import Episode
from phaseb.episodes.sources import open_source
from phaseb.episodes.splits import choose_splits
from phaseb.pipeline.dataset_stats import SPLITS, Census, DataFacts
from phaseb.pipeline.requirements import Preflight, preflight


def rehearse(config: Config) -> Preflight:
    """Read the recordings of a config, or assume what it would collect, and check all stages against them.

    Raises:
        DataError: where recordings cannot be read.
        ConfigError: where the environment cannot be made.
    """
    if config.episodes.source in COLLECTED:
        return preflight(config, _assumed(config))
    environment = make_environment(config.environment, 1)
    shown = None if environment is None else shown_by(environment)
    if environment is not None:
        environment.close()
    facts = Census.of(_recorded(config.episodes, config.run.seed)).facts()
    return preflight(config, replace(facts, environment=shown))


def _recorded(config: EpisodesConfig, seed: int) -> Iterator[Episode]:
    source = open_source(config)
    roles = choose_splits(source.entries(), config, seed)
    for episode, role in zip(source.read(range(len(roles))), roles, strict=True):
        yield replace(episode, split=role)


def _assumed(config: Config) -> DataFacts:
    """Episodes of full length, with what the environment shows."""
    counts = (config.episodes.num_train, config.episodes.num_dev, config.episodes.num_test)
    lengths = {s: np.full(n, config.environment.max_steps, dtype=np.int64) for s, n in zip(SPLITS, counts, strict=True)}
    environment = make_environment(config.environment, 1)
    if environment is None:
        return DataFacts(lengths, assumed=True)
    shown = shown_by(environment)
    environment.close()
    return DataFacts(lengths, **shown, assumed=True)
