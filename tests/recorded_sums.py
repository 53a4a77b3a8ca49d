"""Whether all rows and rewards of recorded episodes come in, or are counted as left out."""

import numpy as np
import pytest

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.inventory import Inventory, summarise
from phaseb.episodes.sources import inventory_of, open_source


def read(config: EpisodesConfig) -> tuple[list[Episode], Inventory]:
    source = open_source(config)
    return list(source.read(range(len(source.entries())))), inventory_of(source)


def check_sums(config: EpisodesConfig, episodes: int, rows: int, reward: float) -> str:
    """See that what was read and what is said to be left out are all that was recorded; returns what is said."""
    found, inventory = read(config)
    steps, earned = sum(map(len, found)), sum(float(e.rewards.astype(np.float64).sum()) for e in found)
    left = inventory.left_out
    assert len(found) + sum(part.episodes for part in left) == inventory.episodes == episodes
    assert inventory.rows in (None, rows)
    assert steps + sum(part.rows for part in left) == rows
    assert earned + sum(part.reward for part in left) == pytest.approx(reward, abs=1e-4)
    return summarise(inventory, len(found), steps)
