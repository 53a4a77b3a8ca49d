"""Numbers over steps: collected as dictionaries, kept as one Parquet table, told with intervals."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from phaseb.runtime.storage import Store


def write_metrics(store: Store, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of metrics (any keys; absent ones are null) as a Parquet file."""
    keys: dict[str, None] = {}
    for row in rows:
        keys.update(dict.fromkeys(row))
    table = pa.table({key: [row.get(key) for row in rows] for key in keys})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    store.write_bytes(buffer.getvalue(), name)


def read_metrics(store: Store, name: str) -> list[dict[str, Any]]:
    """The rows of a metrics file."""
    return list(pq.read_table(io.BytesIO(store.read_bytes(name))).to_pylist())


def mean_interval(
    values: Iterable[float], confidence: float = 0.95, least: float = -np.inf, most: float = np.inf
) -> tuple[float, float, float]:
    """Mean and Student-t interval of the mean over the finite values: (mean, low, high).

    One value has no interval: (value, nan, nan). None at all: three NaN. The interval ends at `least` and `most`, which
    the quantity cannot leave (a rate is in 0 to 1): a few seeds' symmetric one may go beyond.
    """
    x = np.asarray([v for v in values if v is not None], dtype=float)
    x = x[np.isfinite(x)]
    if len(x) == 0:
        return float("nan"), float("nan"), float("nan")
    mean = float(x.mean())
    if len(x) == 1:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.5 + confidence / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return mean, max(mean - half, least), min(mean + half, most)
