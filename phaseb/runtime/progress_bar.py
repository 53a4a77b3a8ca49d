"""Show stages at work: a live line with a bar for each on a terminal, plain lines every few seconds elsewhere."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from phaseb.runtime.formatting import duration, number

PLAIN_EVERY_S = 10.0
BAR_CELLS = 20
DETAIL_CHARACTERS = 110
COUNTS = {"step", "num_steps", "seconds", "rungs", "of"}
"""Progress metrics that the bar shows."""
KEY_METRICS = {
    "collect": ("episodes", "mpl", "error_rate"),
    "import": ("episodes", "mpl", "error_rate"),
    "encode": ("probe_r2", "decode_r2"),
    "bricks": ("num_bricks",),
    "dynamics": ("std_ratio", "rmse_60"),
    "choice": ("generator",),
    "synthesize": ("episodes",),
    "trust": ("roc_auc", "pass_rate", "effective_contribution"),
    "judge": ("judge_auc",),
    "baselines": ("runs", "updates_per_s"),
    "policy": ("runs", "updates_per_s"),
    "closed_loop": ("policies", "return_bias", "pearson"),
    "evaluate": ("shipped",),
}


@dataclass
class _Shown:
    """A stage at work: its start, its first and its newest metrics."""

    started: float
    first: tuple[float, float] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class StageView:
    """A callback for runs. A stage that ended leaves one line with its time and key metrics.

    Args:
        console: where to print; rich respects `NO_COLOR` and knows whether it is a terminal.
        stages: all that will come, to say how many are left; empty where that is not known.
    """

    def __init__(self, console: Console, stages: Sequence[str] = ()) -> None:
        self._console, self._stages = console, list(stages)
        self._live: Live | None = None
        self._at_work: dict[str, _Shown] = {}
        self._printed = 0.0

    def on_stage_start(self, stage: str) -> None:
        if not self._at_work:
            self._printed = time.monotonic()
        self._at_work[stage] = _Shown(time.monotonic())
        if self._console.is_terminal and self._live is None:
            self._live = Live(Text(), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        self._show()

    def on_progress(self, stage: str, metrics: Mapping[str, float]) -> None:
        self._at_work.setdefault(stage, _Shown(time.monotonic())).metrics = metrics
        self._show()

    def on_stage_end(self, stage: str, metrics: Mapping[str, Any], seconds: float, skipped: bool) -> None:
        self._at_work.pop(stage, None)
        if not self._at_work:
            self.close()
        wanted = KEY_METRICS.get(stage.rpartition(" ")[2].partition("/")[0], ())
        shown = {name: metrics[name] for name in wanted if name in metrics}
        for part, own in metrics.items():  # numbers of one generator
            if isinstance(own, Mapping):
                shown |= {f"{part}/{name}": own[name] for name in wanted if name in own}
        how = "up to date" if skipped else f"{seconds:.0f} s"
        self._console.print(f"{stage:<12} {how:>10}   {_brief(shown)}", markup=False, soft_wrap=True)

    def on_note(self, line: str) -> None:
        """Show a remark on a line of its own."""
        self.close()
        self._console.print(f"note: {line}", markup=False, soft_wrap=True)

    def close(self) -> None:
        """Put the live lines away, if there are any."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def line(self, stage: str, metrics: Mapping[str, float]) -> str:
        """A stage at work: which of how many, bar, steps, rate, time left, its metrics, time so far."""
        shown = self._at_work.setdefault(stage, _Shown(time.monotonic()))
        parts = [stage]
        if stage in self._stages:
            parts.insert(0, f"{self._stages.index(stage) + 1}/{len(self._stages)}")
        done = metrics.get("step", metrics.get("rungs"))
        of = metrics.get("num_steps", metrics.get("of"))
        if done is not None and of:
            bar = _bar(done / of, self._console.options.ascii_only)
            parts += [bar, f"{done:.0f}/{of:.0f}", *_pace(shown, done, of)]
        brief = _brief({name: value for name, value in metrics.items() if name not in COUNTS})
        elapsed = duration(time.monotonic() - shown.started)
        return "  ".join(part for part in [*parts, brief, f"({elapsed})"] if part)

    def _show(self) -> None:
        if self._live is not None:
            lines = "\n".join(self.line(stage, shown.metrics) for stage, shown in self._at_work.items())
            self._live.update(Text(lines, no_wrap=True, overflow="ellipsis"))
        elif time.monotonic() - self._printed >= PLAIN_EVERY_S:
            self._printed = time.monotonic()
            for stage, shown in self._at_work.items():
                self._console.print(self.line(stage, shown.metrics), markup=False, soft_wrap=True)


def _pace(shown: _Shown, done: float, of: float) -> list[str]:
    """Rate and time left, measured from the first report on: a resumed stage does not begin at 0."""
    now = time.monotonic()
    if shown.first is None:
        shown.first = (done, now)
        return []
    then, since = shown.first
    if done <= then or now <= since:
        return []
    rate = (done - then) / (now - since)
    return [f"{number(rate)}/s", f"{duration((of - done) / rate)} left"]


def _bar(share: float, ascii_only: bool) -> str:
    full = max(0, min(BAR_CELLS, round(share * BAR_CELLS)))
    done, left = ("#", ".") if ascii_only else ("█", "░")
    return done * full + left * (BAR_CELLS - full)


def _brief(metrics: Mapping[str, Any]) -> str:
    """As many of them, from the first on, as a line holds: half a number would be another number."""
    told = [f"{name} {number(value)}" for name, value in metrics.items()]
    while len(line := "  ".join(told)) > DETAIL_CHARACTERS:
        told.pop()
    return line
