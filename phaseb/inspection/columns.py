"""Rules that look at one column at a time: constant, stuck, saturated, jumps.

A rule compares an episode with the others of the same column, so no unit and no rate enters it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.inventory import listed
from phaseb.episodes.resolution import is_constant
from phaseb.inspection.data_issue import DataIssue, Severity
from phaseb.inspection.recordings import Floats, Group

MIN_RUN, RUN_RATIO, RUN_SHARE = 10, 5.0, 0.1
"""A column is stuck for this many equal rows at least, this multiple of the median episode's longest stretch, and this
share of the episode."""
SATURATED_SHARE, SATURATED_EPISODE = 0.05, 0.15
"""Share of all rows, or of one episode's, that lie exactly at the extreme of a saturated column."""
JUMP_RATIO, JUMP_WIDTH = 8.0, 0.5
"""A jump exceeds this multiple of the 99.9th percentile, and this share of the width of the middle 98 %."""


def constant_columns(group: Group) -> Iterator[DataIssue]:
    """Columns that never change in any episode."""
    still = np.flatnonzero(is_constant(group.rows)).tolist() if len(group.rows) else []
    if still:
        names = [group.names[c] for c in still]
        yield DataIssue("constant", "warning", f"{listed(names)} never change{'s' * (len(names) == 1)}: no information")


def stuck_columns(group: Group) -> Iterator[DataIssue]:
    """Stretches in which a column repeats one value although it changes in most other episodes."""
    if len(group) < 2 or not len(group.names):
        return
    runs = np.stack([longest_runs(group.episode(i)) for i in range(len(group))])  # (N, C)
    lengths = np.diff(group.first)[:, None]
    usual = np.median(runs, axis=0)
    stuck = (runs >= MIN_RUN) & (runs > RUN_RATIO * usual) & (runs >= RUN_SHARE * lengths)
    stuck &= ~is_constant(group.rows) & ~group.is_discrete()
    for i in np.flatnonzero(stuck.any(axis=1)):
        columns = np.flatnonzero(stuck[i])
        names, most = [group.names[c] for c in columns], int(runs[i, columns].max())
        what = "all columns repeat" if len(columns) == len(group.names) > 1 else f"{listed(names)} repeat"
        yield DataIssue(
            "stuck",
            "warning",
            f"{what} one value for {most} of {lengths[i, 0]} rows, usually for {usual[columns].max():g}",
            (group.ids[i],),
            names[0],
        )


def saturated_columns(group: Group) -> Iterator[DataIssue]:
    """Columns that lie exactly at an extreme for many rows, over all episodes or in one; of actions a note."""
    if not len(group.rows):
        return
    free = ~is_constant(group.rows) & ~group.is_discrete()
    low, high = group.rows.min(axis=0), group.rows.max(axis=0)
    at_low, at_high = (group.rows == low).sum(axis=0), (group.rows == high).sum(axis=0)
    enough = np.maximum(MIN_RUN, SATURATED_SHARE * len(group.rows))
    for c in np.flatnonzero(free & (np.maximum(at_low, at_high) >= enough)).tolist():
        share = (at_low[c] + at_high[c]) / len(group.rows)
        text = f"{group.names[c]} lies at an extreme ({low[c]:g} or {high[c]:g})"
        yield _saturated(group, f"{text} in {share:.0%} of all rows", c)
    yield from _saturated_episodes(group, free)


def _saturated_episodes(group: Group, free: NDArray[np.bool_]) -> Iterator[DataIssue]:
    parts = [group.episode(i) for i in range(len(group))]
    if len(parts) < 2:
        return
    there = [(part == part.max(axis=0)) | (part == part.min(axis=0)) for part in parts]
    share, rows = np.stack([at.mean(axis=0) for at in there]), np.stack([at.sum(axis=0) for at in there])
    visits, usual = np.stack([_stretches(at) for at in there]), np.median(share, axis=0)
    clipped = free & (share >= SATURATED_EPISODE) & (share > RUN_RATIO * usual) & (visits >= 2) & (rows >= MIN_RUN)
    for i, c in zip(*np.nonzero(clipped), strict=True):
        low, high = parts[i][:, c].min(), parts[i][:, c].max()
        text = f"{group.names[c]} lies at an extreme ({low:g} or {high:g}) in {share[i, c]:.0%} of the rows"
        yield _saturated(group, f"{text}, usually in {usual[c]:.1%}", c, group.ids[i])


def _saturated(group: Group, text: str, column: int, *episodes: str) -> DataIssue:
    severity: Severity = "note" if group.is_action else "warning"
    return DataIssue("saturated", severity, text, episodes, group.names[column])


def jumps(group: Group) -> Iterator[DataIssue]:
    """Single rows far from both neighbours, in a column whose steps are small."""
    if len(group.rows) < 3:
        return
    free = np.flatnonzero(~is_constant(group.rows) & ~group.is_discrete())
    parts = [group.episode(i)[:, free] for i in range(len(group))]
    scores = [spikes(part) for part in parts]
    whole = np.concatenate(scores)
    if not len(whole):
        return
    usual = np.quantile(whole, 0.999, axis=0)
    width = np.diff(np.quantile(group.rows[:, free], (0.01, 0.99), axis=0), axis=0)[0]
    bar = np.maximum(JUMP_RATIO * usual, JUMP_WIDTH * width)
    for i, score in enumerate(scores):
        at = list(zip(*np.nonzero(score > bar), strict=True))
        places = [
            f"{group.names[free[c]]} at row {t + 1} ({', '.join(f'{x:.4g}' for x in parts[i][t : t + 3, c])})"
            for t, c in at
        ]
        if at:
            yield DataIssue(
                "jump", "warning", f"a single row jumps: {listed(places)}", (group.ids[i],), group.names[free[at[0][1]]]
            )


def spikes(values: Floats) -> Floats:
    """(T - 2, C) how far each inner row of (T, C) lies beyond both neighbours; 0 where it lies between them."""
    into, out = np.diff(values, axis=0)[:-1], -np.diff(values, axis=0)[1:]
    return np.where(into * out > 0, np.minimum(np.abs(into), np.abs(out)), 0.0)


def longest_runs(values: Floats) -> NDArray[np.int64]:
    """(C,) rows of the longest stretch of one value in each column of (T, C)."""
    if len(values) < 2:
        return np.ones(values.shape[1], dtype=np.int64)
    same = values[1:] == values[:-1]
    count = np.cumsum(same, axis=0)
    return np.asarray((count - np.maximum.accumulate(np.where(same, 0, count), axis=0)).max(axis=0) + 1)


def _stretches(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(C,) number of separate stretches of true rows in each column of (T, C)."""
    return np.asarray((np.diff(flags.astype(np.int8), axis=0, prepend=0) == 1).sum(axis=0))
