"""What a job gives back, and who is told while it works."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class RunResult:
    """Metrics by name, and where the outputs lie, relative to the run directory."""

    metrics: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


class Callback(Protocol):
    """Told what a run does: a terminal, a log, a search trial.

    A callback that has `on_note(line)` too is given what was chosen to fit the episodes, and other remarks.
    """

    def on_stage_start(self, stage: str) -> None: ...

    def on_progress(self, stage: str, metrics: Mapping[str, float]) -> None: ...

    def on_stage_end(self, stage: str, metrics: Mapping[str, Any], seconds: float, skipped: bool) -> None: ...
