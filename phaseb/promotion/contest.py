"""Who is compared with whom, and one running comparison of two arms."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from phaseb.promotion.paired import Evidence, PairedTest, Row, verdict

Outcome = Literal["promote", "reject", "open", "alike"]


@dataclass(frozen=True)
class Contest:
    """The arms of a decision.

    Attributes:
        candidates: arms that may be shipped in place of the controls.
        controls: arms that learn from real episodes alone, the one that ships by default first.
        placebos: by candidate, the arm that draws recorded rows in place of rollouts.
    """

    candidates: tuple[str, ...]
    controls: tuple[str, ...]
    placebos: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.controls:
            raise ValueError("a decision needs an arm that learns from real episodes alone")

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm that is compared, once."""
        placebos = (self.placebos[name] for name in self.candidates if name in self.placebos)
        return tuple(dict.fromkeys((*self.candidates, *self.controls, *placebos)))

    def without(self, *candidates: str) -> "Contest":
        return Contest(tuple(c for c in self.candidates if c not in candidates), self.controls, self.placebos)


@dataclass
class Comparison:
    """A candidate against one other arm, look after look.

    Attributes:
        candidate, against: names of the arms.
        is_placebo: whether `against` is the candidate's placebo, which ships nothing.
        trail: the evidence at each look.
        outcome: of the last look.
        stopped: whether no further episode is spent on it.
    """

    candidate: str
    against: str
    is_placebo: bool
    trail: list[Evidence] = field(default_factory=list)
    outcome: Outcome = "open"
    stopped: bool = False

    def look(self, test: PairedTest, rows: Mapping[str, Sequence[Row]]) -> None:
        """Take in all episodes of both arms."""
        self.record(test.look(rows[self.candidate], rows[self.against]))

    def record(self, evidence: Evidence) -> None:
        self.trail.append(evidence)
        self.outcome = verdict(evidence)
        self.stopped = self.outcome != "open"

    @property
    def evidence(self) -> Evidence:
        """Of the last look."""
        return self.trail[-1]

    def to_json(self) -> dict[str, Any]:
        return {
            "candidate": self.candidate,
            "against": self.against,
            "placebo": self.is_placebo,
            "outcome": self.outcome,
            "looks": [asdict(evidence) for evidence in self.trail],
        }


def comparisons(contest: Contest) -> list[Comparison]:
    """Every candidate against every control, and against its placebo."""
    found = [Comparison(c, control, False) for c in contest.candidates for control in contest.controls]
    return found + [Comparison(c, contest.placebos[c], True) for c in contest.candidates if c in contest.placebos]


def promoted(found: Sequence[Comparison], candidate: str) -> bool:
    """Whether the candidate has beaten every control."""
    mine = [one for one in found if one.candidate == candidate and not one.is_placebo]
    return bool(mine) and all(one.outcome == "promote" for one in mine)


def hardest(found: Sequence[Comparison], candidate: str) -> Comparison:
    """The control that the candidate has shown least against."""
    rank = {"reject": 0, "alike": 1, "open": 2, "promote": 3}
    mine = [one for one in found if one.candidate == candidate and not one.is_placebo and one.trail]
    return min(mine, key=lambda one: (rank[one.outcome], one.evidence.excess))


def placebo_of(found: Sequence[Comparison], candidate: str) -> Comparison | None:
    """The comparison with the candidate's placebo, where there was one."""
    return next((one for one in found if one.candidate == candidate and one.is_placebo and one.trail), None)
