"""What floating-point numbers resolve: columns that never change, and columns that single precision cannot hold.

All tests are free of scale: none asks whether a number is small, only how it compares with its neighbours.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

COARSE = 1e-4  # share of its range by which rounding to single precision may move a column's values


def is_constant(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """(D,) true where a column of rows (M, D) spans no more than the precision of its type at its size.

    Two neighbouring floats are one number recorded twice. Whole numbers are exact.
    """
    exact = rows.dtype.kind not in "f"
    low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
    size = np.maximum(np.abs(low), np.abs(high))
    return np.asarray(high - low <= (0.0 if exact else float(np.finfo(rows.dtype).eps)) * size)


def spread_of(rows: NDArray[Any]) -> NDArray[np.float64]:
    """(D,) standard deviation of the columns of rows (M, D) in double precision; 1 where a column is constant."""
    return np.where(is_constant(rows), 1.0, rows.std(axis=0, dtype=np.float64))


def compact(values: NDArray[Any], whole: bool = True) -> NDArray[np.float32] | NDArray[np.float64]:
    """Values (M, …) in single precision, or in double where single precision cannot hold a column.

    A clock (1.7e9 + t) or a coordinate far from its origin loses what changes in it when it is rounded: it moves by
    more than COARSE of its range.

    Args:
        values: rows of recorded numbers.
        whole: whether these are all rows of the data. Of a part, a column that does not move here may move elsewhere
            by any amount, so it stays in double precision unless single precision holds it exactly.
    """
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(values, np.float32)
    if (values.dtype.kind != "f" and values.dtype.itemsize <= 2) or values.dtype == np.float32 or not values.size:
        return single
    double = np.asarray(values, np.float64)
    if not np.isfinite(single).all():
        return single
    moved = np.abs(single - double).reshape(len(double), -1).max(axis=0)
    span = np.ptp(double.reshape(len(double), -1), axis=0)
    lost = (moved > COARSE * span) & ((span > 0) | (not whole))
    return np.ascontiguousarray(double) if bool(lost.any()) else single
