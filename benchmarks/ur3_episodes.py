"""Real UR3 pick-and-place cycles (UCI 963, "UR3 CobotOps") as episodes: no actions, no rewards, gaps in time.

Rows with a NaN are left out. A cycle is cut where more than GAP_S seconds lie between two rows, and every stretch is an
episode of its own; a single missing row is bridged.
"""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from phaseb.episodes.episode import Episode
from phaseb.errors import DataError

GAP_S = 2.5  # one row a second: a row that is missing leaves two
FLAGS = ("Robot_ProtectiveStop", "grip_lost")
ASIDE = ("Num", "Timestamp", "cycle")


def read_cycles(path: str, least_steps: int) -> list[Episode]:
    """Stretches of at least `least_steps` steps, in the order recorded; the state is every sensor and both flags.

    Raises:
        DataError: where the file is absent or has other columns.
    """
    try:
        table = pq.read_table(path).to_pandas().sort_values("Num")
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}; the UR3 cycles are optional data") from error
    lacking = [name for name in (*FLAGS, *ASIDE) if name not in table]
    if lacking:
        raise DataError(f"{path} lacks the column {lacking[0]!r}: these are no UR3 CobotOps rows")
    sensors = table.drop(columns=list(ASIDE)).astype(np.float32)
    known = table[sensors.notna().all(axis=1)]
    apart = (known["Timestamp"].diff() > pd.Timedelta(seconds=GAP_S)) | (known["cycle"].diff() != 0)
    stretches = known.groupby(apart.cumsum()).indices
    rows = sensors.loc[known.index].to_numpy()
    episodes = []
    for number, where in stretches.items():
        if len(where) > least_steps:
            rewards = np.zeros(len(where) - 1, np.float32)
            episodes.append(Episode(id=f"ur3-{number:04d}", state=np.ascontiguousarray(rows[where]), rewards=rewards))
    return episodes
