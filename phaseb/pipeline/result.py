"""Results of a job, and the callbacks that follow its progress."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Report = Callable[[Mapping[str, float]], None]
"""Receives metrics by name while a stage works."""


@dataclass(frozen=True)
class RunResult:
    """Metrics by name, and the paths of the outputs, relative to the run directory."""

    metrics: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


class Callback(Protocol):
    """Follows a run: a terminal, a log, a search trial. Stages may overlap, so every call names its stage.

    A callback that also has `on_note(line)` is given what was chosen to fit the episodes, and other remarks.
    """

    def on_stage_start(self, stage: str) -> None: ...

    def on_progress(self, stage: str, metrics: Mapping[str, float]) -> None: ...

    def on_stage_end(self, stage: str, metrics: Mapping[str, Any], seconds: float, skipped: bool) -> None: ...
