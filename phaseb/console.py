"""What a person sees while a run works: a live line on a terminal, plain lines elsewhere; results at the end."""

import json
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table
from rich.text import Text

from phaseb.config.root import Config
from phaseb.runs.result import RunResult
from phaseb.storage import strict

PLAIN_EVERY_S = 10.0
SHOWN = {
    "collect": ("episodes", "mpl", "error_rate"),
    "import": ("episodes", "mpl", "error_rate"),
    "encode": ("probe_r2", "decode_r2"),
    "bricks": ("num_bricks",),
    "world-model": ("std_ratio", "rmse_60"),
    "synthesize": ("episodes",),
    "trust": ("roc_auc", "pass_rate", "effective_contribution"),
    "judge": ("judge_auc",),
    "policy": ("runs", "updates_per_s"),
    "evaluate": ("shipped",),
}


class Console:
    """A callback for runs that tells a person; everything but the result goes to stderr."""

    def __init__(self, config: Config, json_only: bool) -> None:
        self._config, self._json = config, json_only
        self._rich = RichConsole(stderr=True, highlight=False)
        self._live: Live | None = None
        self._stage, self._started, self._spoke = "", 0.0, 0.0
        self._first: tuple[float, float] = (0.0, 0.0)

    def __enter__(self) -> "Console":
        if self._rich.is_terminal:
            self._live = Live(Text(), console=self._rich, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def on_stage_start(self, stage: str) -> None:
        self._stage, self._started, self._spoke, self._first = stage, time.monotonic(), time.monotonic(), (0.0, 0.0)
        self._show(f"{stage} …")

    def on_progress(self, stage: str, metrics: Mapping[str, float]) -> None:
        self._show(f"{stage}  {self._pace(metrics)}{_brief(metrics)}")

    def on_stage_end(self, stage: str, metrics: Mapping[str, Any], seconds: float, skipped: bool) -> None:
        shown = {name: metrics[name] for name in SHOWN.get(stage, ()) if name in metrics}
        how = "up to date" if skipped else f"{seconds:.0f} s"
        self._rich.print(f"{stage:<12} {how:>10}   {_brief(shown)}", markup=False, soft_wrap=True)
        if self._live:
            self._live.update(Text())

    def conclude(self, command: str, result: RunResult) -> None:
        """Print the result: JSON on stdout if asked, else tables."""
        if self._live:
            self._live.stop()
            self._live = None
        if self._json:
            sys.stdout.write(json.dumps(strict(result.metrics), allow_nan=False) + "\n")
        elif "arms" in result.metrics:
            show_results(result.metrics, RichConsole(highlight=False, width=None if sys.stdout.isatty() else 100))
        for name in () if self._json else ("page",):
            if name in result.outputs:
                print(f"\nreport: {self._config.run.dir}/{result.outputs[name]}")

    def _pace(self, metrics: Mapping[str, float]) -> str:
        step, of = metrics.get("step"), metrics.get("num_steps")
        if step is None or not of:
            return ""
        now = time.monotonic()
        if not self._first[0]:
            self._first = (step, now)
        rate = (step - self._first[0]) / (now - self._first[1]) if now > self._first[1] else 0.0
        left = f", {(of - step) / rate:.0f} s left" if rate > 0 else ""
        return f"{step:.0f}/{of:.0f} steps{left}  "

    def _show(self, line: str) -> None:
        if self._live:
            self._live.update(Text(f"{line}  ({time.monotonic() - self._started:.0f} s)"))
        elif time.monotonic() - self._spoke >= PLAIN_EVERY_S:
            self._spoke = time.monotonic()
            self._rich.print(line, markup=False, soft_wrap=True)


def show_results(results: Mapping[str, Any], console: RichConsole) -> None:
    """The verdict, the numbers of the synthetic data, and a column for every arm."""
    console.print(f"\n{results['verdict']}\n", soft_wrap=True)
    facts = Table()
    facts.add_column("synthetic data")
    facts.add_column("this run", justify="right")
    facts.add_column("founding report", justify="right")
    for row in results["synthetic"]:
        facts.add_row(row["name"], _number(row["value"]), row["founding"])
    console.print(facts)
    console.print(f"\n{results['arms_title']}", soft_wrap=True)
    arms = Table()
    arms.add_column("")
    for arm in results["arms"]:
        arms.add_column(arm, justify="right")
    for metric in results["arm_columns"]:
        arms.add_row(metric, *(_interval(arm.get(metric)) for arm in results["arms"].values()))
    console.print(arms)


def _interval(value: Any) -> str:
    if isinstance(value, Mapping):
        mean, low, high = value["mean"], value["low"], value["high"]
        if low is None or low != low:
            return _number(mean)
        return f"{_number(mean)} [{_number(low)}, {_number(high)}]"
    return _number(value)


def _number(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _brief(metrics: Mapping[str, Any]) -> str:
    skip = {"step", "num_steps", "seconds"}
    return "  ".join(f"{name} {_number(value)}" for name, value in metrics.items() if name not in skip)[:110]
