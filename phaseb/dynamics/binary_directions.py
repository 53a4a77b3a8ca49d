"""Directions in which latents only ever take two values: a flag that turned or learned latents spread over dimensions.

A standardised variable of two values has the least kurtosis there is, so such a direction is where a projection of
white data has its least (a fixed point of FastICA, Hyvärinen 1999, run downwards). Then it is exact: the sides are
known, and a regression on them leaves nothing.
Legend: M rows, D dimensions, E directions.
"""

import numpy as np
from numpy.typing import NDArray

from phaseb.dynamics.discrete_levels import two_levels

Array = NDArray[np.float64]
MIN_ROWS = 20  # times D: below, any two sides could be told by a direction
MAX_STARTS, MAX_TURNS, MAX_ROWS = 16, 60, 4000


def find_binary_directions(y: Array) -> Array:
    """Orthonormal directions (D, E) of white rows y (M, D) along which there are two narrow levels and nothing else."""
    size = y.shape[1]
    found = np.zeros((size, 0))
    while found.shape[1] < size and len(y) >= MIN_ROWS * size:
        rest = complement(found)
        direction = _one_switch(y @ rest)
        if direction is None:
            break
        found = np.concatenate([found, (rest @ direction)[:, None]], axis=1)
    return found


def complement(directions: Array) -> Array:
    """An orthonormal basis (D, D − E) of what is orthogonal to orthonormal directions (D, E)."""
    size, count = directions.shape
    basis: Array = np.linalg.qr(np.concatenate([directions, np.eye(size)], axis=1))[0][:, count:]
    return basis


def _one_switch(x: Array) -> Array | None:
    rows = x[:: max(1, len(x) // MAX_ROWS)]
    for start in np.eye(x.shape[1])[:MAX_STARTS]:
        direction = _fit_sides(x, _least_kurtosis(rows, start))
        if direction is not None and two_levels(x @ direction):
            return direction
    return None


def _least_kurtosis(rows: Array, direction: Array) -> Array:
    for _ in range(MAX_TURNS):
        after = 3 * direction - (rows * ((rows @ direction) ** 3)[:, None]).mean(axis=0)
        after /= max(float(np.linalg.norm(after)), 1e-12)
        done = abs(float(after @ direction)) > 1 - 1e-9
        direction = after
        if done:
            break
    return direction


def _fit_sides(x: Array, direction: Array) -> Array | None:
    """The direction that tells the two sides of a projection best; None where there is but one side."""
    for _ in range(3):
        side = x @ direction
        side = (side > (side.max() + side.min()) / 2).astype(np.float64)
        if side.min() == side.max():
            return None
        direction = np.linalg.lstsq(x, side - side.mean(), rcond=None)[0]
        direction /= max(float(np.linalg.norm(direction)), 1e-12)
    return direction
