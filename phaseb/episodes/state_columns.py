"""The names and widths of what an episode's state is made of, compared with what an environment shows."""

import json
from collections.abc import Mapping, Sequence

from phaseb.errors import DataError

TAG = "state_columns"
"""The tag of an episode that holds them, as JSON: [[name, width], …]."""

Columns = Sequence[tuple[str, int]]
_PREFIXES = ("observations/", "obs/", "observation.")


def short_name(column: str) -> str:
    """A column of observations as an environment's Dict calls it."""
    for prefix in _PREFIXES:
        if column.startswith(prefix):
            return column.removeprefix(prefix)
    return column


def to_tag(columns: Columns) -> dict[str, str]:
    """The tag of a state of several columns; no tag where one column is all."""
    return {TAG: json.dumps([list(column) for column in columns])} if len(columns) > 1 else {}


def from_tag(tags: Mapping[str, str]) -> list[tuple[str, int]]:
    """The columns that an episode's tags name; none where they name none."""
    return [(str(name), int(width)) for name, width in json.loads(tags.get(TAG, "[]"))]


def check_order(recorded: Columns, offered: Columns, name: str) -> None:
    """See that columns of the same name lie at the same place of the state.

    Args:
        recorded: of the episodes; empty where their names are unknown.
        offered: of the environment's observations, or of other episodes; empty where they are not named.
        name: of the environment, or of the other episodes.

    Raises:
        DataError: naming the first column that lies elsewhere, and both orders.
    """
    places = dict(_places(offered))
    for column, place in _places(recorded):
        if column in places and places[column] != place:
            raise DataError(
                f"the episodes' state is {_shown(recorded)}, that of {name} is {_shown(offered)}: {column!r} lies "
                "elsewhere; list the columns in that order in episodes.columns.observation"
            )


def _places(columns: Columns) -> list[tuple[str, tuple[int, int]]]:
    """Each name with the first and last place of its numbers."""
    found, first = [], 0
    for name, width in columns:
        found.append((name, (first, first + width)))
        first += width
    return found


def _shown(columns: Columns) -> str:
    return ", ".join(f"{name} ({width})" for name, width in columns)
