"""Structured logs: one JSON object a line, with the time, the run, the stage, the node and the process.

`PHASEB_LOG=json` turns them on for the process a person started; workers always write them, to the log files that Ray
keeps for them. Without it, a person sees warnings as plain lines.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from phaseb.runtime.storage import to_jsonable

LOGGER = logging.getLogger("phaseb")
SECRET_WORDS = ("token", "secret", "password", "passwd", "api_key", "apikey", "access_key", "credential")
HIDDEN = "[hidden]"

_bound: dict[str, Any] = {}


def bind(**fields: Any) -> None:
    """Say once what all that follows is about (`run`, `stage`, `rank`); None takes a field back."""
    _bound.update(fields)
    for name in [name for name, value in _bound.items() if value is None]:
        del _bound[name]


def event(name: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write one line: what happened, and its figures."""
    LOGGER.log(level, name, extra={"fields": fields})


@contextmanager
def collect_warnings() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Yield a list that takes the text and the fields of every warning of the block, for another process to show."""
    handler = _Collector(logging.WARNING)
    LOGGER.addHandler(handler)
    try:
        yield handler.found
    finally:
        LOGGER.removeHandler(handler)


def configure(worker: bool = False) -> None:
    """Send this process's events to stderr; calling it again changes nothing."""
    if any(isinstance(handler.formatter, JsonLines | PlainWarnings) for handler in LOGGER.handlers):
        return
    as_json = worker or os.environ.get("PHASEB_LOG", "") == "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else PlainWarnings())
    handler.setLevel(logging.INFO if as_json else logging.WARNING)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


class _Collector(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.found: list[tuple[str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", {})
        self.found.append((record.getMessage(), {name: _shown(name, value) for name, value in fields.items()}))


class JsonLines(logging.Formatter):
    """One JSON object a record. Fields whose names say that they are secret are hidden."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_bound,
            "node": socket.gethostname(),
            "pid": record.process,
            **getattr(record, "fields", {}),
        }
        return json.dumps(to_jsonable({name: _shown(name, value) for name, value in fields.items()}), allow_nan=False)


class PlainWarnings(logging.Formatter):
    """A line as a person reads it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        told = ", ".join(f"{name} {_shown(name, value)}" for name, value in fields.items())
        return f"phaseb: {record.levelname.lower()}: {record.getMessage()}" + (f" ({told})" if told else "")


def _shown(name: str, value: Any) -> Any:
    if any(word in name.lower() for word in SECRET_WORDS):
        return HIDDEN
    return value if isinstance(value, str | int | float | bool | None | list | dict | tuple) else str(value)
