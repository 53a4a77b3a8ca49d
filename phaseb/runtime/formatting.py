"""Numbers as people read them: the same on the terminal, on the page, and in a search's table."""

from collections.abc import Mapping
from typing import Any


def number(value: Any) -> str:
    """Three digits that matter, thousands apart; an en dash where nothing is known; text as it is."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def interval(value: Any) -> str:
    """`mean [low, high]` of a mapping with these keys; only the mean where there is no interval."""
    if not isinstance(value, Mapping):
        return number(value)
    if value.get("low") is None or value["low"] != value["low"]:
        return number(value.get("mean"))
    return f"{number(value['mean'])} [{number(value['low'])}, {number(value['high'])}]"


def signed(value: Any) -> str:
    """A difference with its sign."""
    return number(value) if value is None or value != value or value <= 0 else f"+{number(value)}"


def size(num_bytes: float) -> str:
    """Bytes as people say them: 64 MB, 1.2 GB."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.3g} MB"


def duration(seconds: float) -> str:
    """Seconds as people say them: 41 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
