"""The terms of a study, fixed before its first trial, and what its trials decide."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phaseb.config.data import ValuationConfig
from phaseb.errors import DataError
from phaseb.promotion.label_shuffles import LabelShuffles
from phaseb.promotion.paired import PairedTest, Row

Outcome = Literal["success", "score"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """The terms of a study.

    Attributes:
        candidate, control: names of the policies.
        labels: by blind label, `candidate` or `control`.
        num_trials: trials of each policy; pairs where the study is paired.
        looks: interim analyses, the last one at `num_trials`.
        confidence: 1 less the rate of false promotions.
        outcome: column that is compared.
        paired: whether both policies start from the same condition.
        gain, power: the difference that the study was planned for, and the chance to find it.
    """

    candidate: str
    control: str
    labels: Mapping[str, str]
    num_trials: int
    looks: int = 3
    confidence: float = 0.95
    outcome: Outcome = "success"
    paired: bool = True
    gain: float = float("nan")
    power: float = float("nan")

    @property
    def trials_of_look(self) -> list[int]:
        """Trials of each policy at each look."""
        return np.unique(np.linspace(0, self.num_trials, self.looks + 1).round().astype(int))[1:].tolist()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Study":
        """The terms in a key file.

        Raises:
            DataError: where they are not the terms of a study.
        """
        try:
            study = cls(**tree)
        except TypeError as error:
            raise DataError(f"the key is not of a study: {error}; write it with `phaseb trials plan`") from error
        if sorted(study.labels.values()) != ["candidate", "control"]:
            raise DataError("the key must give one label to the candidate and one to the control")
        return study


@dataclass(frozen=True)
class Look:
    """What is known at one look: difference of means, candidate less control, with bounds.

    Attributes:
        trials: of each policy.
        candidate, control: their means.
        difference, low, high: estimate, and bounds at the study's confidence over all looks.
    """

    trials: int
    candidate: float
    control: float
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        return "better" if self.low > 0 else "worse" if self.high < 0 else "open"


def analyse(study: Study, candidate: Floats, control: Floats) -> list[Look]:
    """The looks that the trials so far allow, up to the first that decides.

    Trials beyond a planned look wait for the next one, so it does no harm to ask at any time.

    Args:
        candidate, control: (n,) outcomes in the order of the trials; where paired, row i of both is pair i.
    """
    there = min(len(candidate), len(control))
    test = _Paired(study) if study.paired else _Independent(study)
    looks: list[Look] = []
    for trials in study.trials_of_look:
        if trials > there or (looks and looks[-1].verdict != "open"):
            break
        looks.append(test.look(candidate[:trials], control[:trials]))
    return looks


class _Paired:
    """The test by which promotion compares policies in physics, with outcomes in place of returns."""

    def __init__(self, study: Study) -> None:
        self._test = PairedTest(ValuationConfig(), 0.0, study.num_trials, 1 - study.confidence)

    def look(self, candidate: Floats, control: Floats) -> Look:
        found = self._test.look(_rows(candidate), _rows(control))
        return Look(
            len(candidate), float(candidate.mean()), float(control.mean()), found.difference, found.low, found.high
        )


class _Independent:
    def __init__(self, study: Study) -> None:
        alpha = 1 - study.confidence
        self._better, self._worse = LabelShuffles(study.num_trials, alpha), LabelShuffles(study.num_trials, alpha)
        self._seen = 0

    def look(self, candidate: Floats, control: Floats) -> Look:
        added = candidate[self._seen :], control[self._seen :]
        self._seen = len(candidate)
        difference = float(candidate.mean() - control.mean())
        above, below = self._better.critical(*added), self._worse.critical(-added[0], -added[1])
        return Look(
            len(candidate),
            float(candidate.mean()),
            float(control.mean()),
            difference,
            difference - above,
            difference + below,
        )


def _rows(outcomes: Floats) -> Sequence[Row]:
    return [{"seed": float(i), "return": float(value)} for i, value in enumerate(outcomes)]


def decision(study: Study, looks: Sequence[Look], there: int) -> dict[str, Any]:
    """What the study decides, as JSON: `decided`, `promoted`, `shipped`, a `reason` and all looks.

    Args:
        there: trials of each policy that are recorded.
    """
    last = looks[-1] if looks else None
    ended = last is not None and (last.verdict != "open" or last.trials == study.num_trials)
    promoted = last is not None and last.verdict == "better"
    shipped = study.candidate if promoted else study.control
    return {
        "method": "trials",
        "decided": ended,
        "promoted": promoted,
        "shipped": shipped if ended else "",
        "candidate": study.candidate,
        "control": study.control,
        "confidence": study.confidence,
        "paired": study.paired,
        "outcome": study.outcome,
        "num_trials": study.num_trials,
        "trials": there,
        "looks": [asdict(look) for look in looks],
        "reason": _reason(study, last, there, ended),
    }


def _reason(study: Study, last: Look | None, there: int, ended: bool) -> str:
    unit = "points" if study.outcome == "success" else "of score"
    size = 100 if study.outcome == "success" else 1
    upcoming = next((n for n in study.trials_of_look if n > there), study.num_trials)
    kind = "pairs" if study.paired else "trials of each policy"
    more = f"go on: the next look is after {upcoming - there} more {kind}"
    if last is None:
        return more
    if not np.isfinite(last.low):
        found = f"{study.candidate} {size * last.difference:+.3g} {unit} after {last.trials} {kind}"
    else:
        found = (
            f"{study.candidate} {size * last.difference:+.3g} {unit} ({size * last.low:+.3g} to "
            f"{size * last.high:+.3g}) after {last.trials} {kind}"
        )
    if not ended:
        return f"{found}; {more}"
    shown = {"better": f"{study.candidate} is shipped", "worse": f"{study.control} is shipped"}
    return f"{shown.get(last.verdict, f'{study.control} is shipped, no difference was shown')}: {found}"
