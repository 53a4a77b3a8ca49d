"""The recorded trials: a CSV file, checked line by line."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.errors import DataError
from phaseb.robot_trials.study import Study

YES, NO = {"1", "true", "yes", "y", "success"}, {"0", "false", "no", "n", "fail", "failure"}
SKEWED = 0.75
"""Share of the pairs that one policy begins beyond which the order is named."""


@dataclass(frozen=True)
class Trial:
    """One valid trial.

    Attributes:
        seq: its place in the order.
        pair: its pair; empty where the study is not paired.
        arm: the blind label.
        outcome: success (0 or 1) or score.
        operator, reset: who ran it, and how the scene was set; empty where not recorded.
    """

    seq: int
    pair: str
    arm: str
    outcome: float
    operator: str
    reset: str


@dataclass(frozen=True)
class Trials:
    """All trials that count, in their order, and what is worth knowing of the others."""

    candidate: NDArray[np.float64]
    control: NDArray[np.float64]
    notes: tuple[str, ...]


def read_trials(text: str, study: Study, name: str) -> Trials:
    """The outcomes of both policies; pairs of which a trial is invalid or not yet done are left out.

    Args:
        text: CSV with a header; see `plan.COLUMNS`.
        name: of the file, for messages.

    Raises:
        DataError: naming the lines that cannot be read.
    """
    rows = list(csv.DictReader(io.StringIO(text.lstrip("\ufeff"))))
    trials, faults, invalid, waiting = list[Trial](), list[str](), 0, 0
    for line, row in enumerate(rows, start=2):
        fields = {str(key).strip(): (value or "").strip() for key, value in row.items() if key is not None}
        if fields.get("status", "").lower() == "invalid" or fields.get("invalid_reason"):
            invalid += 1
            if not fields.get("invalid_reason"):
                faults.append(f"line {line}: an invalid trial needs an invalid_reason")
        elif not fields.get(study.outcome):
            waiting += 1
        else:
            try:
                trials.append(_trial(fields, study, line))
            except DataError as error:
                faults.append(f"line {line}: {error}")
    faults += _repeated(trials)
    if not rows or faults:
        raise DataError("\n".join(f"{name}: {fault}" for fault in faults or ["holds no trials"]))
    trials.sort(key=lambda one: one.seq)
    notes = [f"{invalid} invalid trials"] if invalid else []
    notes += [f"{waiting} trials have no {study.outcome} yet"] if waiting else []
    return _paired(trials, study, notes) if study.paired else _independent(trials, study, notes)


def _trial(fields: Mapping[str, str], study: Study, line: int) -> Trial:
    if fields.get("arm") not in study.labels:
        raise DataError(f"arm {fields.get('arm', '')!r} is none of {', '.join(sorted(study.labels))}")
    if study.paired and not fields.get("pair"):
        raise DataError("a paired study needs a pair; give one, or plan with --unpaired")
    text = fields[study.outcome]
    if study.outcome == "success":
        if text.lower() not in YES | NO:
            raise DataError(f"success {text!r} is neither 1 nor 0")
        value = float(text.lower() in YES)
    else:
        try:
            value = float(text)
        except ValueError as error:
            raise DataError(f"score {text!r} is no number") from error
        if not math.isfinite(value):
            raise DataError(f"score {text!r} is not finite")
    try:
        seq = int(fields.get("seq") or line)
    except ValueError as error:
        raise DataError(f"seq {fields['seq']!r} is no whole number") from error
    return Trial(seq, fields.get("pair", ""), fields["arm"], value, fields.get("operator", ""), fields.get("reset", ""))


def _repeated(trials: Sequence[Trial]) -> list[str]:
    counted = Counter(one.seq for one in trials)
    faults = [f"seq {seq} is there {count} times" for seq, count in counted.items() if count > 1]
    twice = Counter((one.pair, one.arm) for one in trials if one.pair)
    return faults + [f"pair {pair} has {count} trials of {arm}" for (pair, arm), count in twice.items() if count > 1]


def _paired(trials: Sequence[Trial], study: Study, notes: list[str]) -> Trials:
    pairs: dict[str, list[Trial]] = {}
    for one in trials:
        pairs.setdefault(one.pair, []).append(one)
    whole = {name: both for name, both in pairs.items() if len(both) == 2}
    if len(whole) < len(pairs):
        notes.append(f"{len(pairs) - len(whole)} pairs are not complete and are left out")
    for what in ("operator", "reset"):
        differ = [name for name, both in whole.items() if getattr(both[0], what) != getattr(both[1], what)]
        if differ:
            notes.append(f"{what} differs within {len(differ)} pairs, first in pair {differ[0]}")
        elif not any(getattr(one, what) for one in trials):
            notes.append(f"no {what} is recorded")
    first = [study.labels[both[0].arm] == "candidate" for both in whole.values()]
    if len(first) >= 8 and max(np.mean(first), 1 - np.mean(first)) > SKEWED:
        notes.append(f"the candidate went first in {np.mean(first):.0%} of the pairs: wear may favour one side")
    order = [{study.labels[one.arm]: one.outcome for one in both} for both in whole.values()]
    return Trials(np.array([o["candidate"] for o in order]), np.array([o["control"] for o in order]), tuple(notes))


def _independent(trials: Sequence[Trial], study: Study, notes: list[str]) -> Trials:
    sides = {role: [one for one in trials if study.labels[one.arm] == role] for role in ("candidate", "control")}
    operators = [{one.operator for one in side} for side in sides.values()]
    if all(sides.values()) and operators[0] != operators[1]:
        notes.append("the policies were run by different operators")
    values = {role: np.array([one.outcome for one in side]) for role, side in sides.items()}
    return Trials(values["candidate"], values["control"], tuple(notes))
