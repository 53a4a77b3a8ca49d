"""Episodes out of a folder of CSV logs, one file an episode.

Columns: `position`, `speed` (observed before the step), `force` (the action), `reward`. The last row is the observation
after the last action; its force and reward are empty.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.errors import DataError


class CsvSource:
    """What `episodes.source=csv_source:CsvSource` names."""

    def __init__(self, config: EpisodesConfig) -> None:
        self._files = sorted(Path(config.path).glob("*.csv"))
        if not self._files:
            raise DataError(f"no CSV files in {config.path}")

    def entries(self) -> Sequence[tuple[str, str]]:
        """Every episode's id, and the split it carries ("" for none)."""
        return [(file.stem, "") for file in self._files]

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        """The episodes at some positions of `entries`, one in memory at a time."""
        for index in indices:
            file = self._files[index]
            rows = np.genfromtxt(file, delimiter=",", names=True, dtype=np.float32)
            state = np.stack([rows["position"], rows["speed"]], axis=1)
            yield Episode(id=file.stem, state=state, actions=rows["force"][:-1, None], rewards=rows["reward"][:-1])
