"""Rules that compare episodes with each other: duplicates, and columns recorded in another unit."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from phaseb.inspection.data_issue import DataIssue
from phaseb.inspection.recordings import Floats, Group, Recording
from phaseb.runtime.seeding import numpy_generator

SHARED, MIN_SHARED, MOST_HOLDERS = 0.5, 10, 4
"""Share and number of rows that make one episode a copy of another; rows held by more episodes count for none."""
GAP, MINORITY, AGREEMENT = 4.0, 0.34, 2.5
"""A unit change leaves a gap of this ratio between episodes, concerns at most this share of them, and scales a
column's width and its steps alike up to this ratio."""
MIN_EPISODES = 6


def duplicates(recordings: Sequence[Recording]) -> Iterator[DataIssue]:
    """Episodes that repeat another one, whole or for half of the rows of the shorter."""
    hashes = [_row_hashes(one) for one in recordings]
    whole: dict[bytes, list[int]] = defaultdict(list)
    for i, rows in enumerate(hashes):
        whole[rows.tobytes()].append(i)
    for copies in whole.values():
        if len(copies) > 1:
            names = tuple(recordings[i].id for i in copies)
            yield DataIssue("duplicate", "warning", f"{len(names)} equal episodes: keep one", names)
    single = [copies[0] for copies in whole.values()]
    for (i, j), count in _shared([(i, hashes[i]) for i in single]).items():
        least = min(len(hashes[i]), len(hashes[j]))
        if count >= max(MIN_SHARED, SHARED * least):
            yield DataIssue(
                "duplicate",
                "warning",
                f"{count} of {least} rows are equal: one is a part of the other",
                (recordings[i].id, recordings[j].id),
            )


def _row_hashes(one: Recording) -> NDArray[np.uint64]:
    """(T,) a hash of each step's state and action."""
    rows = np.concatenate([one.state[:-1], one.actions, one.rewards[:, None]], axis=1) + 0.0  # one zero, not two
    odd = numpy_generator(0, "row hashes").integers(1, 2**63, rows.shape[1], dtype=np.uint64) * 2 + 1
    bits = np.ascontiguousarray(rows).view(np.uint64)
    bits = (bits ^ (bits >> np.uint64(32))) * odd
    return np.asarray((bits ^ (bits >> np.uint64(29))).sum(axis=1, dtype=np.uint64))


def _shared(hashed: Sequence[tuple[int, NDArray[np.uint64]]]) -> Counter[tuple[int, int]]:
    """The number of distinct rows that two episodes share, for pairs that share any."""
    found: Counter[tuple[int, int]] = Counter()
    if not hashed:
        return found
    distinct = [(i, np.unique(rows)) for i, rows in hashed]
    owners = np.concatenate([np.full(len(rows), i) for i, rows in distinct])
    keys = np.concatenate([rows for _, rows in distinct])
    order = np.argsort(keys, kind="stable")
    keys, owners = keys[order], owners[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    counts = np.diff(np.append(starts, len(keys)))
    for start, count in zip(starts[counts > 1], counts[counts > 1], strict=True):
        if count <= MOST_HOLDERS:
            found.update(combinations(sorted(owners[start : start + count].tolist()), 2))
    return found


def unit_changes(states: Group, actions: Group) -> Iterator[DataIssue]:
    """Columns that a minority of the episodes records on another scale, beyond a gap that no episode lies in."""
    if len(states) < MIN_EPISODES:
        return
    groups = [group for group in (states, actions) if group.names]
    names = [name for group in groups for name in group.names]
    discrete = np.concatenate([group.is_discrete() for group in groups])
    with np.errstate(divide="ignore"):
        width, pace = (
            np.log(np.concatenate([_over_episodes(group, measure) for group in groups], axis=1))
            for measure in (_width, _pace)
        )
    usual = np.median(width, axis=0)
    known = np.isfinite(usual) & np.isfinite(np.median(pace, axis=0)) & ~discrete
    with np.errstate(invalid="ignore"):  # of columns that stand still
        ratio = width - usual, pace - np.median(pace, axis=0)
    for c in np.flatnonzero(known).tolist():
        odd = _minority(width[:, c]) & _minority(pace[:, c])
        odd &= np.abs(ratio[0][:, c] - ratio[1][:, c]) < np.log(AGREEMENT)
        for i in np.flatnonzero(odd):
            if _others_are_usual(ratio[0][i], c, known):
                factor = float(np.exp((ratio[0][i, c] + ratio[1][i, c]) / 2))
                shown = f"{factor:.3g} times" if factor > 1 else f"1/{1 / factor:.3g} of"
                yield DataIssue(
                    "unit",
                    "warning",
                    f"{names[c]} ranges and moves {shown} the usual: another unit?",
                    (states.ids[i],),
                    names[c],
                )


def _over_episodes(group: Group, measure: Callable[[Floats], Floats]) -> Floats:
    return np.stack([measure(group.episode(i)) for i in range(len(group))])


def _width(rows: Floats) -> Floats:
    return np.asarray(np.diff(np.quantile(rows, (0.05, 0.95), axis=0), axis=0)[0])


def _pace(rows: Floats) -> Floats:
    if len(rows) < 2:
        return np.zeros(rows.shape[1])
    return np.asarray(np.quantile(np.abs(np.diff(rows, axis=0)), 0.9, axis=0))


def _minority(logs: Floats) -> NDArray[np.bool_]:
    """(N,) the episodes on the smaller side of the widest gap, where that is wide and the side is small."""
    order = np.sort(logs)
    with np.errstate(invalid="ignore"):
        gaps = np.nan_to_num(np.diff(order), nan=0.0)
    at = int(np.argmax(gaps))
    if gaps[at] < np.log(GAP):
        return np.zeros(len(logs), dtype=bool)
    below = logs <= order[at]
    small = below if below.sum() * 2 <= len(logs) else ~below
    return np.asarray(small & (small.mean() <= MINORITY) & np.isfinite(logs))


def _others_are_usual(ratio: Floats, column: int, known: NDArray[np.bool_]) -> bool:
    """Whether the episode's other columns are as wide as usual, or all changed by this very factor."""
    rest = np.delete(ratio, column)[np.delete(known, column)]
    if not len(rest):
        return True
    return bool(np.median(np.abs(rest)) < np.log(2) or np.median(np.abs(rest - ratio[column])) < np.log(1.5))
