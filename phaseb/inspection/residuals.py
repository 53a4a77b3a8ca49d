"""Episodes unlike the rest: the one-step prediction that fits the others fails on them.

The cross-fitted ridge regression of the trust gate predicts each step from the state and the action. It is fitted
twice, the second time without the episodes that it predicts worst. Of an episode that stands out, the cause is sought:
two columns exchanged, a column of opposite sign, or actions shifted against the states.

N episodes, T steps, D state columns, A action columns.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from phaseb.episodes.trajectories import Trajectories
from phaseb.inspection.data_issue import DataIssue
from phaseb.inspection.recordings import Floats, Recording
from phaseb.trust.one_step_residuals import RidgeDynamics, fit_ridge_dynamics

NUM_FOLDS, NUM_FEATURES, MIN_EPISODES = 3, 32, 6
CLIP = 10.0
"""Standardised values beyond this say no more than that they are far out."""
WORST_SHARE = 0.2
"""Share of the episodes that the second fit leaves out."""
UNLIKE, SPREADS = 3.0, 8.0
"""An episode is unlike the rest where its error in a column is this multiple of the median episode's, and this many
spreads of its logarithm above it."""
CUT_RATIO, CUT_SPREADS = 7.0, 3.0
"""A cut: the largest error of a step is this multiple of the median episode's largest, and this many spreads above."""
SAME = 1e-6
"""Share of its length by which a column must differ from a sum of others to say anything new."""
MOST_EXPLAINED, MOST_COLUMNS, MOST_SHIFT = 12, 8, 3

State = tuple[Floats, Floats]
"""(T+1, D) states and (T, A) actions of an episode."""


@dataclass(frozen=True)
class Residuals:
    """The errors of the one-step prediction.

    Attributes:
        ids: of the N episodes.
        excess: (N, D) logarithm of each episode's error over the median episode's.
        spread: (D,) spread of that logarithm over the episodes.
        steps: N arrays (T,): the root mean square error of each step over the columns.
    """

    ids: tuple[str, ...]
    excess: Floats
    spread: Floats
    steps: tuple[Floats, ...]

    def stand_out(self) -> NDArray[np.int64]:
        """The episodes unlike the rest, the worst first."""
        worst = self.excess.max(axis=1)
        odd = ((self.excess > np.log(UNLIKE)) & (self.excess > SPREADS * self.spread)).any(axis=1)
        return np.asarray(sorted(np.flatnonzero(odd), key=lambda i: -worst[i]), dtype=np.int64)


class OneStep:
    """The prediction, fitted to some episodes that have states and actions."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._center, self._scale = _robust([one.state for one in recordings])
        self._action_center, self._action_scale = _robust([one.actions for one in recordings])
        self._ids = tuple(one.id for one in recordings)
        self.recorded = [(one.state, one.actions) for one in recordings]
        self.data = [self._standardise(*one) for one in self.recorded]
        self._folds = np.arange(len(self.data)) % NUM_FOLDS
        self._predictor = self._fit(range(len(self.data)))
        errors = np.array([np.median(np.abs(self._errors(i))) for i in range(len(self.data))])
        kept = np.flatnonzero(errors <= np.quantile(errors, 1 - WORST_SHARE)).tolist()
        if len(kept) >= NUM_FOLDS:
            self._folds[kept] = np.arange(len(kept)) % NUM_FOLDS
            self._predictor = self._fit(kept)
        self._usual = np.ones(self._center.shape)
        levels = np.stack([self._levels(self._errors(i)) for i in range(len(self.data))])
        self._usual = np.median(levels, axis=0)

    def residuals(self) -> Residuals:
        """The errors of all episodes."""
        errors = [self._errors(i) for i in range(len(self.data))]
        excess = np.stack([self._excess(e) for e in errors])
        spread = np.maximum(np.quantile(excess, 0.84, axis=0), 0.05)
        steps = tuple(np.sqrt((e**2).mean(axis=1)) for e in errors)
        return Residuals(self._ids, excess, spread, steps)

    def excess(self, episode: State, fold: int) -> float:
        """The largest logarithmic excess of a recorded or changed episode over the columns."""
        return float(self._excess(self._predict(self._standardise(*episode), fold)).max())

    def fold(self, i: int) -> int:
        return int(self._folds[i])

    def _fit(self, chosen: Sequence[int]) -> RidgeDynamics:
        return fit_ridge_dynamics(_padded([self.data[i] for i in chosen]), self._folds[list(chosen)], NUM_FEATURES, 0)

    def _errors(self, i: int) -> Floats:
        return self._predict(self.data[i], int(self._folds[i]))

    def _predict(self, episode: State, fold: int) -> Floats:
        return self._predictor.errors(_padded([episode]), fold)[0, :, :-1].astype(np.float64)

    def _levels(self, errors: Floats) -> Floats:
        return np.asarray(np.quantile(np.abs(errors), 0.8, axis=0)) + 1e-6

    def _excess(self, errors: Floats) -> Floats:
        return np.asarray(np.log(self._levels(errors) / self._usual))

    def _standardise(self, state: Floats, actions: Floats) -> State:
        state = ((state - self._center) / self._scale).clip(-CLIP, CLIP)
        return state, ((actions - self._action_center) / self._action_scale).clip(-CLIP, CLIP)


def unlike_the_rest(recordings: Sequence[Recording], names: Sequence[str]) -> tuple[list[DataIssue], Residuals | None]:
    """Episodes and steps that the prediction fitted to the others fails on, each with its cause where one is found."""
    usable = [one for one in recordings if len(one) > 1]
    if len(usable) < MIN_EPISODES or not usable[0].state.shape[1]:
        return [], None
    kept = independent_columns([one.state for one in usable])
    usable = [replace(one, state=one.state[:, kept]) for one in usable]
    names = [names[c] for c in kept]
    model = OneStep(usable)
    found = model.residuals()
    odd = found.stand_out()
    findings = [_explain(model, found, int(i), names) for i in odd[:MOST_EXPLAINED]]
    if len(odd) > MOST_EXPLAINED:
        rest = tuple(found.ids[i] for i in odd[MOST_EXPLAINED:])
        findings.append(DataIssue("unlike", "warning", "their steps differ from those of the rest", rest))
    return [*findings, *_cuts(found, set(odd.tolist()))], found


def independent_columns(states: Sequence[Floats]) -> list[int]:
    """The columns of states (T+1, D) without those that say what others say already of an episode as a whole.

    An embedding of a few tasks has many columns that are constant within an episode: more than there are tasks say
    nothing new, and would count as many times in the distances of the prediction.
    """
    first = np.stack([state[0] for state in states])
    held = np.all([(state == state[:1]).all(axis=0) for state in states], axis=0) & (np.ptp(first, axis=0) > 0)
    columns = np.flatnonzero(held)
    values = first[:, columns] - first[:, columns].mean(axis=0)
    if not len(columns):
        return list(range(first.shape[1]))
    _, triangle, order = qr(values / values.std(axis=0), mode="economic", pivoting=True)
    size = np.abs(np.diag(triangle))
    repeated = columns[order[int((size > SAME * size[0]).sum()) :]]
    return [c for c in range(first.shape[1]) if c not in set(repeated.tolist())]


def _cuts(found: Residuals, known: set[int]) -> Iterator[DataIssue]:
    largest = np.log([max(float(steps.max()), 1e-9) for steps in found.steps])
    spread = float(np.quantile(largest, 0.84) - np.median(largest))
    bar = float(np.exp(np.median(largest) + max(np.log(CUT_RATIO), CUT_SPREADS * spread)))
    for i, steps in enumerate(found.steps):
        at = np.flatnonzero(steps > bar)
        if len(at) and i not in known:
            yield DataIssue(
                "cut",
                "warning",
                f"the step from row {at[0]} to row {at[0] + 1} is unlike any other: rows "
                "are lost, or two attempts are joined",
                (found.ids[i],),
            )


def _explain(model: OneStep, found: Residuals, i: int, names: Sequence[str]) -> DataIssue:
    """The change of the episode that makes it most like the rest, if one does."""
    before, fold = float(found.excess[i].max()), model.fold(i)
    tried = [(model.excess(change, fold), kind, text) for kind, text, change in _changes(model, found, i, names)]
    after, kind, text = min(tried, default=(before, "", ""), key=lambda one: one[0])
    times = f"{np.exp(before):.3g} times the usual error of a one-step prediction"
    worst = names[int(found.excess[i].argmax())]
    if after < before / 2 and after < np.log(UNLIKE):
        text = f"{text}: {times} as recorded, {np.exp(after):.2g} otherwise"
        return DataIssue(kind, "warning", text, (found.ids[i],), worst)
    text = f"{times}, most in {worst}: other dynamics, or a fault"
    return DataIssue("unlike", "warning", text, (found.ids[i],), worst)


def _changes(model: OneStep, found: Residuals, i: int, names: Sequence[str]) -> Iterator[tuple[str, str, State]]:
    state, actions = model.recorded[i]
    elevated = np.argsort(-found.excess[i])[:MOST_COLUMNS].tolist()
    for a, b in combinations(sorted(elevated), 2):
        yield "swapped", f"{names[a]} and {names[b]} seem exchanged", (_swap(state, a, b), actions)
    for a, b in combinations(range(actions.shape[1])[: 2 * MOST_COLUMNS], 2):
        yield "swapped", f"action[{a}] and action[{b}] seem exchanged", (state, _swap(actions, a, b))
    for a in elevated:
        yield "sign", f"{names[a]} seems to have the opposite sign", (_flip(state, a), actions)
    for a in range(actions.shape[1]):
        yield "sign", f"action[{a}] seems to have the opposite sign", (state, _flip(actions, a))
    for shift in range(1, min(MOST_SHIFT, len(actions) - 2) + 1):
        yield "shifted", f"actions seem recorded {shift} rows late", (state[:-shift], actions[shift:])
        yield "shifted", f"actions seem recorded {shift} rows early", (state[shift:], actions[: len(actions) - shift])


def _swap(rows: Floats, a: int, b: int) -> Floats:
    changed = rows.copy()
    changed[:, [a, b]] = rows[:, [b, a]]
    return changed


def _flip(rows: Floats, a: int) -> Floats:
    changed = rows.copy()
    changed[:, a] = -changed[:, a]
    return changed


def _robust(parts: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Centre and scale of columns that outliers hardly move."""
    rows = np.concatenate(parts)
    low, middle, high = np.quantile(rows, (0.05, 0.5, 0.95), axis=0)
    scale = (high - low) / 3.29
    return middle, np.where(scale > 0, scale, np.maximum(rows.std(axis=0), 1e-9))


def _padded(episodes: Sequence[State]) -> Trajectories:
    lengths = np.array([len(actions) for _, actions in episodes], dtype=np.int64)
    most = int(lengths.max())

    def pad(parts: Sequence[Floats], rows: int, mode: Callable[[Floats], Floats]) -> NDArray[np.float32]:
        filled = [np.concatenate([part, np.repeat(mode(part), rows - len(part), axis=0)]) for part in parts]
        return np.stack(filled).astype(np.float32)

    zeros = np.zeros((len(episodes), most), np.float32)
    return Trajectories(
        z=pad([s for s, _ in episodes], most + 1, lambda p: p[-1:]),
        actions=pad([a for _, a in episodes], most, lambda p: 0 * p[-1:]),
        rewards=zeros,
        terminals=zeros,
        lengths=lengths,
        ids=("",) * len(episodes),
        splits=("",) * len(episodes),
    )
