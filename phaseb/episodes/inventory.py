"""What a source of recorded episodes holds, and what of it does not become steps of episodes."""

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from phaseb.runtime import logs

MAX_NAMES = 8


@dataclass(frozen=True)
class LeftOut:
    """Recorded rows that become no step of their own.

    Attributes:
        what: which, and why.
        episodes: whole episodes among them.
        rows: rows of actions.
        reward: the sum of their rewards that no episode holds.
    """

    what: str
    episodes: int = 0
    rows: int = 0
    reward: float = 0.0


@dataclass(frozen=True)
class Inventory:
    """All that was recorded, by the data's own count.

    Attributes:
        episodes: recorded episodes.
        rows: recorded rows of actions; None where nothing counts them.
        left_out: the rows that become no step.
        columns: recorded columns that no episode holds.
        notes: what was decided about the data, a sentence each.
        shared_rows: rows that are part of a step that begins with an earlier row.
    """

    episodes: int
    rows: int | None
    left_out: tuple[LeftOut, ...] = ()
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shared_rows: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether all that was recorded becomes episodes, and nothing had to be decided."""
        return not (self.left_out or self.columns or self.notes)


def summarise(inventory: Inventory, episodes: int, steps: int) -> str:
    """One line on an import: what came in, of how much, and what was left out.

    Args:
        inventory: of the source.
        episodes, steps: what was written.
    """
    taken = steps + inventory.shared_rows
    left = [_describe(part) for part in inventory.left_out]
    missing = (
        inventory.episodes - episodes - sum(part.episodes for part in inventory.left_out),
        0 if inventory.rows is None else inventory.rows - taken - sum(part.rows for part in inventory.left_out),
    )
    if missing != (0, 0):
        left.append(f"{missing[0]} episodes and {missing[1]} rows that the data count and do not hold")
    if inventory.columns:
        left.append(f"columns {listed(inventory.columns)}")
    of_all = "" if inventory.rows is None else f" of {inventory.rows}"
    line = f"imported {episodes} of {inventory.episodes} episodes, {taken}{of_all} rows"
    if inventory.shared_rows:
        line += f" as {steps} steps"
    if left:
        line += f"; left out: {', '.join(left)}"
    return "; ".join([line, *inventory.notes])


def log_inventory(inventory: Inventory, episodes: int, steps: int, **fields: str) -> None:
    """Write the line of `summarise` to the log: a warning where anything recorded does not become a step.

    Args:
        inventory, episodes, steps: as for `summarise`.
        fields: what else the line names.
    """
    is_whole = inventory.is_whole and episodes == inventory.episodes and inventory.rows in (None, steps)
    logs.event(summarise(inventory, episodes, steps), logging.INFO if is_whole else logging.WARNING, **fields)


def listed(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(shown(name) for name in names[:MAX_NAMES]) + more


def shown(name: str, longest: int = 100) -> str:
    """A name as one line can show it: characters that do not print are escaped, what is too long is cut."""
    plain = "".join(character if prints(character) else repr(character)[1:-1] for character in name)
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def prints(text: str) -> bool:
    """Whether all characters of a text take their place in a line: letters, marks and white space that is no break."""
    return all(character.isprintable() or unicodedata.category(character) == "Zs" for character in text)


def _describe(part: LeftOut) -> str:
    counts = [f"{part.episodes} episodes"] if part.episodes else []
    counts += [f"{part.rows} rows"] if part.rows else []
    if part.reward:
        counts.append(f"reward {part.reward:g}")
    return f"{part.what} ({', '.join(counts)})" if counts else part.what
