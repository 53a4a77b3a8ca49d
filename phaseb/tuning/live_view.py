"""What a person sees of a search: a live table on a terminal if asked, else a line for every trial that ends."""

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from phaseb.config.tuning import StudyConfig
from phaseb.runtime.formatting import number
from phaseb.runtime.progress_bar import StageView
from phaseb.tuning.trial_store import TrialRecord, TrialStore, best_trials

SHOWN = 15


class StudyConsole(StageView):
    """Tells of trials on stderr; a context manager, so that a live table is put away again."""

    def __init__(self, study: StudyConfig, records: TrialStore, watch: bool) -> None:
        self._study, self._records = study, records
        super().__init__(Console(stderr=True, highlight=False, soft_wrap=True))
        self._board = Live(console=self._console, refresh_per_second=2) if watch and self._console.is_terminal else None
        self._began = time.monotonic()

    def __enter__(self) -> "StudyConsole":
        if self._board:
            self._board.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._board:
            self._board.stop()

    def on_report(self, record: TrialRecord) -> None:
        if self._board:
            self._board.update(self.table())

    def on_end(self, record: TrialRecord) -> None:
        if self._board:
            self._board.update(self.table())
            return
        metric = self._study.metrics[0]
        value = record.last.get(metric.name)
        told = f"{metric.name} {value:.4g}" if value is not None else record.reason
        point = "  ".join(f"{_short(name)}={number(v)}" for name, v in record.point.items())
        where = f"{record.phase} {record.number + 1:>3} {record.state:<8} {record.steps:>6} steps"
        self._console.print(f"{where} {record.seconds:>5.0f} s  {told}  {point}", markup=False)

    def table(self) -> Table:
        """The best trials and those in progress."""
        metric = self._study.metrics[0]
        everything = self._records.phase("search") + self._records.phase("confirm")
        running = [r for r in everything if not r.ended]
        best = [r for r in best_trials(everything, metric) if r.ended][: SHOWN - len(running)]
        ended = sum(r.ended for r in everything)
        title = f"{ended} of {self._study.budget.trials} trials, {time.monotonic() - self._began:.0f} s"
        table = Table("trial", "state", "steps", metric.name, "point", title=title)
        for record in best + running:
            value = record.last.get(metric.name)
            table.add_row(
                str(record.number + 1),
                record.state,
                str(record.steps),
                "" if value is None else number(value),
                "  ".join(f"{_short(name)}={number(v)}" for name, v in record.point.items()),
            )
        return table


def _short(name: str) -> str:
    return ".".join(name.split(".")[-2:])
