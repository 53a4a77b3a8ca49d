"""One thing about some recordings that a person ought to know."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from phaseb.episodes.inventory import listed

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class DataIssue:
    """One thing about some episodes.

    Attributes:
        kind: a word for it, such as `jump` or `duplicate`.
        severity: `error` where a run would be refused, `warning` for a likely fault, `note` for a property.
        text: a sentence that names columns, times and figures.
        episodes: ids of the episodes concerned; empty where it concerns all.
        column: the column to look at; empty where none stands out.
    """

    kind: str
    severity: Severity
    text: str
    episodes: tuple[str, ...] = ()
    column: str = ""

    def __str__(self) -> str:
        where = f"{listed(self.episodes)}: " if self.episodes else ""
        return f"{where}{self.text}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def alike(kind: str, severity: Severity, said: Sequence[tuple[str, str]]) -> list[DataIssue]:
    """What was said of episodes, pairs of id and text: texts that differ in numbers and ids alone become one."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, text in said:
        groups.setdefault(re.sub(r"\d+", "0", text.replace(name, "")), []).append((name, text))
    return [
        DataIssue(
            kind,
            severity,
            group[0][1] + (f" ({len(group) - 1} more alike)" if len(group) > 1 else ""),
            tuple(name for name, _ in group),
        )
        for group in groups.values()
    ]


def by_severity(findings: Sequence[DataIssue]) -> list[DataIssue]:
    """Errors first, then warnings, then notes; each in the order found."""
    return sorted(findings, key=lambda one: SEVERITIES.index(one.severity))
