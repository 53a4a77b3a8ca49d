"""What a person sees of stages at work: one live line with a bar on a terminal, plain lines now and then elsewhere."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from phaseb.runtime.formatting import duration, number

PLAIN_EVERY_S = 10.0
BAR_CELLS = 20
DETAIL_CHARACTERS = 110
COUNTS = {"step", "num_steps", "seconds", "rungs", "of"}
"""Progress metrics that the bar tells already."""
KEY_METRICS = {
    "collect": ("episodes", "mpl", "error_rate"),
    "import": ("episodes", "mpl", "error_rate"),
    "encode": ("probe_r2", "decode_r2"),
    "bricks": ("num_bricks",),
    "dynamics": ("std_ratio", "rmse_60"),
    "synthesize": ("episodes",),
    "trust": ("roc_auc", "pass_rate", "effective_contribution"),
    "judge": ("judge_auc",),
    "policy": ("runs", "updates_per_s"),
    "evaluate": ("shipped",),
}


class StageView:
    """A callback for runs. A stage that ended leaves one line with its time and key metrics.

    Args:
        console: where to tell; rich respects `NO_COLOR` and knows whether it is a terminal.
        stages: all that will come, to say how many are left; empty where that is not known.
    """

    def __init__(self, console: Console, stages: Sequence[str] = ()) -> None:
        self._console, self._stages = console, list(stages)
        self._live: Live | None = None
        self._stage, self._started, self._spoke = "", 0.0, 0.0
        self._first: tuple[float, float] | None = None

    def on_stage_start(self, stage: str) -> None:
        self._stage, self._started, self._spoke, self._first = stage, time.monotonic(), time.monotonic(), None
        if self._console.is_terminal and self._live is None:
            self._live = Live(Text(), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        self._show({})

    def on_progress(self, stage: str, metrics: Mapping[str, float]) -> None:
        self._show(metrics)

    def on_stage_end(self, stage: str, metrics: Mapping[str, Any], seconds: float, skipped: bool) -> None:
        self.close()
        wanted = KEY_METRICS.get(stage.rpartition(" ")[2], ())
        shown = {name: metrics[name] for name in wanted if name in metrics}
        for part, own in metrics.items():  # numbers of one generator
            if isinstance(own, Mapping):
                shown |= {f"{part}/{name}": own[name] for name in wanted if name in own}
        how = "up to date" if skipped else f"{seconds:.0f} s"
        self._console.print(f"{stage:<12} {how:>10}   {_brief(shown)}", markup=False, soft_wrap=True)

    def close(self) -> None:
        """Put the live line away, if there is one."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def line(self, metrics: Mapping[str, float]) -> str:
        """The stage at work: which of how many, bar, steps, rate, time left, its metrics, time so far."""
        parts = [self._stage]
        if self._stage in self._stages:
            parts.insert(0, f"{self._stages.index(self._stage) + 1}/{len(self._stages)}")
        done = metrics.get("step", metrics.get("rungs"))
        of = metrics.get("num_steps", metrics.get("of"))
        if done is not None and of:
            parts += [_bar(done / of), f"{done:.0f}/{of:.0f}", *self._pace(done, of)]
        told = _brief({name: value for name, value in metrics.items() if name not in COUNTS})
        elapsed = duration(time.monotonic() - self._started)
        return "  ".join(part for part in [*parts, told, f"({elapsed})"] if part)

    def _pace(self, done: float, of: float) -> list[str]:
        """Rate and time left, measured from the first report on: a resumed stage does not begin at 0."""
        now = time.monotonic()
        if self._first is None:
            self._first = (done, now)
        then, since = self._first
        if done <= then or now <= since:
            return []
        rate = (done - then) / (now - since)
        return [f"{number(rate)}/s", f"{duration((of - done) / rate)} left"]

    def _show(self, metrics: Mapping[str, float]) -> None:
        if self._live is not None:
            self._live.update(Text(self.line(metrics), no_wrap=True, overflow="ellipsis"))
        elif time.monotonic() - self._spoke >= PLAIN_EVERY_S:
            self._spoke = time.monotonic()
            self._console.print(self.line(metrics), markup=False, soft_wrap=True)


def _bar(share: float) -> str:
    full = max(0, min(BAR_CELLS, round(share * BAR_CELLS)))
    return "█" * full + "░" * (BAR_CELLS - full)


def _brief(metrics: Mapping[str, Any]) -> str:
    """As many of them, from the first on, as a line holds: half a number would be another number."""
    told = [f"{name} {number(value)}" for name, value in metrics.items()]
    while len(line := "  ".join(told)) > DETAIL_CHARACTERS:
        told.pop()
    return line
