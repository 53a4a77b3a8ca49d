"""A requirement of a stage, and what a check of them all found."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from phaseb.config.root import Config
from phaseb.errors import DataError, PhasebError
from phaseb.pipeline.sizes import Choice


@dataclass(frozen=True)
class Requirement:
    """What a stage needs.

    Attributes:
        stage: that would fail.
        setting: dotted name of the setting that asks for it.
        needed, found: in words, with figures.
        remedy: what to do where it is not met.
        met: whether it is.
        error: the class of the error where it is not.
    """

    stage: str
    setting: str
    needed: str
    found: str
    remedy: str
    met: bool
    error: type[PhasebError] = DataError

    def __str__(self) -> str:
        return f"{self.stage} needs {self.needed} ({self.setting}) and finds {self.found}; {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "error"}


@dataclass(frozen=True)
class Preflight:
    """What is known of a run before it trains.

    Attributes:
        config: with sizes that fit the episodes.
        choices: what was changed for that.
        notes: what else is worth knowing.
        requirements: of all stages.
    """

    config: Config
    choices: tuple[Choice, ...]
    notes: tuple[str, ...]
    requirements: tuple[Requirement, ...]

    def lines(self) -> list[str]:
        """Choices and notes, a line each."""
        return [*map(str, self.choices), *self.notes]

    def require(self, *stages: str) -> None:
        """Refuse what would fail in some stages (in any where none is named).

        Raises:
            DataError, ConfigError, ClusterError: with a line for each requirement that is not met.
        """
        unmet = [r for r in self.requirements if not r.met and (not stages or r.stage in stages)]
        if unmet:
            raise unmet[0].error("\n".join(map(str, unmet)))

    def to_json(self) -> dict[str, Any]:
        return {
            "choices": [asdict(choice) for choice in self.choices],
            "notes": list(self.notes),
            "requirements": [requirement.to_json() for requirement in self.requirements],
        }


def show(callbacks: Sequence[Any], lines: Sequence[str]) -> None:
    """Give lines to those callbacks that have `on_note`."""
    for callback in callbacks:
        note: Callable[[str], None] | None = getattr(callback, "on_note", None)
        for line in lines:
            if note is not None:
                note(line)
