"""Write an NPZ file for other trainers, which NumPy alone reads: padded arrays, and what the gate said of each step.

Beside what `npz` reads (`observations`, `actions`, `rewards`, `lengths`, `terminals`, `ids`, metrics):

| array | shape | |
| --- | --- | --- |
| z | (N, T+1, D) | latents, where there are any |
| is_synthetic, trust, weight | (N, T) | of each step; trust is NaN where unscored; 0 beyond the end |
| lineage | (N,) text | JSON: start episode, model digest, action source of a synthetic one |
"""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.formats.export import Exported
from phaseb.episodes.formats.npz import pack_episodes
from phaseb.episodes.formats.npz_file import padded, save_arrays
from phaseb.runtime.storage import Store


def write_exported_npz(store: Store, name: str, episodes: Iterable[Exported]) -> int:
    """Write episodes as one file (all of them in memory) and return their number.

    Raises:
        DataError: for no episodes, or where some carry states, latents or actions and others do not.
    """
    exported = list(episodes)
    arrays: dict[str, NDArray[Any]] = pack_episodes([one.episode for one in exported])
    z = padded("z", [one.z for one in exported])
    if z is not None:
        arrays["z"] = z
    columns = [one.step_columns() for one in exported]
    for column in columns[0]:
        rows = padded(column, [each[column] for each in columns])
        assert rows is not None
        arrays[column] = rows
    arrays["lineage"] = np.array([json.dumps(dict(one.lineage)) for one in exported], np.str_)
    save_arrays(store, name, arrays)
    return len(exported)
