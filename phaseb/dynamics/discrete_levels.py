"""Dimensions whose values lie on a few levels. Legend: N episodes, T steps, D dimensions."""

import numpy as np
from numpy.typing import NDArray

MAX_LEVELS = 4
LEVEL_WIDTH = 0.02  # values within this share of the range belong to one level
LEVEL_GAP = 0.1  # and levels are at least this share of the range apart


def find_levels(z: NDArray[np.float32], mask: NDArray[np.bool_]) -> dict[int, NDArray[np.float32]]:
    """Dimensions of z (N, T+1, D) whose values lie on two to four narrow levels: {dimension: sorted levels}."""
    seen = np.concatenate([mask[:, :1], mask], axis=1)
    groups = {d: split_levels(z[..., d][seen]) for d in range(z.shape[-1])}
    return {d: np.array([g.mean() for g in found], dtype=np.float32) for d, found in groups.items() if found}


def two_levels(values: NDArray[np.floating]) -> bool:
    """Whether values (M,) lie on exactly two narrow levels."""
    return len(split_levels(values)) == 2


def split_levels(values: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    """Values (M,) by the level they lie on, lowest first; empty where they do not lie on two to four."""
    ordered = np.sort(values)
    span = ordered[-1] - ordered[0]
    cuts = np.flatnonzero(np.diff(ordered) > LEVEL_GAP * span) + 1
    if span <= 0 or not 1 <= len(cuts) < MAX_LEVELS:
        return []
    groups = np.split(ordered, cuts)
    return groups if max(float(g[-1] - g[0]) for g in groups) <= LEVEL_WIDTH * span else []
