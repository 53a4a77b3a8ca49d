"""What a person sees of a command: its stages while it works, then its results as JSON or as tables."""

import json
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table

from phaseb.config.root import Config
from phaseb.pipeline.result import RunResult
from phaseb.runtime.formatting import interval, number, signed
from phaseb.runtime.progress_bar import StageView
from phaseb.runtime.storage import to_jsonable

PLAIN_COLUMNS = 100


class Console(StageView):
    """The callback of the command line; everything but the result goes to stderr."""

    def __init__(self, config: Config, json_only: bool, stages: Sequence[str] = ()) -> None:
        super().__init__(RichConsole(stderr=True, highlight=False), stages)
        self._config, self._json = config, json_only

    def __enter__(self) -> "Console":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def conclude(self, result: RunResult) -> None:
        """Print the result: JSON on stdout if asked, else tables."""
        self.close()
        if self._json:
            sys.stdout.write(json.dumps(to_jsonable(result.metrics), allow_nan=False) + "\n")
            return
        if "promotions" in result.metrics:
            show_flywheel(result.metrics, results_console())
        elif "floors" in result.metrics:
            show_in_model(result.metrics, results_console())
        elif "arms" in result.metrics:
            show_results(result.metrics, results_console())
        if "page" in result.outputs:
            print(f"\nreport: {self._config.run.dir}/{result.outputs['page']}")


def results_console() -> RichConsole:
    """Where results are told: stdout, as wide as the terminal, or 100 columns where it is none."""
    return RichConsole(highlight=False, width=None if sys.stdout.isatty() else PLAIN_COLUMNS)


def show_results(results: Mapping[str, Any], console: RichConsole) -> None:
    """The verdict, the numbers of the synthetic data, and a row for every arm."""
    console.print(f"\n{results['verdict']}\n", soft_wrap=True)
    facts = [[row["name"], number(row["value"]), row["founding"]] for row in results["synthetic"]]
    console.print(_table(("synthetic data", "this run", "founding report"), facts))
    console.print(f"\n{results['arms_title']}", soft_wrap=True)
    columns = results["arm_columns"]
    rows = [[name, *(interval(arm.get(m)) for m in columns)] for name, arm in results["arms"].items()]
    headings = [name.replace("_", " ") for name in columns]  # narrow columns break between words
    console.print(_table(("arm", *headings), rows))


def show_in_model(found: Mapping[str, Any], console: RichConsole) -> None:
    """The return of every policy in each generator, and in physics where there is any."""
    known = {name: one for name, one in found["generators"].items() if "policies" in one}
    for name, one in found["generators"].items():
        if "failed" in one:
            console.print(f"{name} is left out: {one['failed']}", soft_wrap=True, markup=False)
    by_policy: dict[str, list[str]] = {}
    for one in known.values():
        for row in one["policies"]:
            by_policy.setdefault(row["policy"], []).append(_return(row["generator"]))
    if found["physics"] and known:
        for row in next(iter(known.values()))["policies"]:
            by_policy[row["policy"]].append(_return(row["physics"]))
    last = ["physics"] if found["physics"] else []
    rows = [[policy, *values] for policy, values in by_policy.items()]
    console.print(_table((f"return over {found['horizon']} steps", *known, *last), rows))
    for name, one in known.items():
        if "return_error" in one:
            console.print(f"{name}: returns may be off by {number(one['return_error'])}, by held-out episodes")


def _return(row: Mapping[str, float]) -> str:
    return f"{number(row['return'])} ± {number(1.96 * row['return_se'])}"


def show_flywheel(told: Mapping[str, Any], console: RichConsole) -> None:
    """The verdict, and a row for every generation."""
    console.print(f"\n{told['verdict']}\n", soft_wrap=True)
    names = ("mpl", "error_rate", "energy_wh_per_unit", "net_value_per_hour", "return")
    rows = [
        [
            str(g["number"]),
            "failed" if g["state"] == "failed" else "promoted" if g["promoted"] else "kept",
            number(g.get("episodes", {}).get("train")),
            *(interval(g.get("metrics", {}).get(n)) for n in names),
        ]
        for g in told["generations"]
    ]
    console.print(_table(("generation", "", "episodes", *names), rows))


def show_comparison(compared: Mapping[str, Any], console: RichConsole) -> None:
    """Both verdicts, then the arms and numbers of two runs side by side."""
    names = [run["name"] for run in compared["runs"]]
    for run in compared["runs"]:
        console.print(f"\n{run['name']}: {run['verdict']}", soft_wrap=True, markup=False)
    rows = [
        [f"{arm} {name}", *map(interval, both["values"]), signed(both["difference"])]
        for arm, measures in compared["arms"].items()
        for name, both in measures.items()
    ]
    rows += [
        [name, *map(number, both["values"]), signed(both["difference"])] for name, both in compared["numbers"].items()
    ]
    console.print(_table(("", *names, "difference"), rows))
    differing = compared["config"]
    console.print(f"{len(differing)} settings differ: {', '.join(differing) or 'none'}", soft_wrap=True)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table()
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold", no_wrap=not i)
    for row in rows:
        table.add_row(*row)
    return table
