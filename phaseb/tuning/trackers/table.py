"""One table of all trials, `<study>/csv/<phase>.csv`, for spreadsheets and pandas."""

import csv
from collections.abc import Sequence
from pathlib import Path

from phaseb.tuning.trackers.tracker import numbers, plain
from phaseb.tuning.trial_store import TrialRecord

HEAD = ("number", "key", "state", "reason", "steps", "seconds")


class TableTracker:
    """A row a trial that ended, added as it ends; a trial of a resumed study is added below those that are there."""

    def __init__(self, study: str, folder: Path, metrics: Sequence[str]) -> None:
        self._folder = folder

    def on_report(self, record: TrialRecord) -> None:
        return None

    def on_end(self, record: TrialRecord) -> None:
        path = self._folder / f"{record.phase}.csv"
        row = {name: getattr(record, name) for name in HEAD} | plain(record) | numbers(record, ("steps", "seconds"))
        rows = [row]
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                before = csv.DictReader(file)
                known = list(before.fieldnames or [])
                if set(row) <= set(known):  # the common case: one line is appended
                    return self._write(path, known, rows, "a")
                rows = [*before, row]
        return self._write(path, list(dict.fromkeys(name for one in rows for name in one)), rows, "w")

    def close(self) -> None:
        return None

    @staticmethod
    def _write(path: Path, names: list[str], rows: list[dict[str, object]], mode: str) -> None:
        with path.open(mode, newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            if mode == "w":
                writer.writeheader()
            writer.writerows(rows)
