"""The spaces that Minari records: which columns a state is made of, in the order and form of the environment."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.errors import DataError

_NUMBERS = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")


@dataclass(frozen=True)
class Leaf:
    """One column of a recorded space.

    Attributes:
        column: its path in the data.
        kind: the name of Gymnasium's space.
        shape: of one row.
        dtype: of its numbers.
        sizes: (K,) number of values of each entry of a Discrete or MultiDiscrete; empty otherwise.
        start: (K,) the first value of each.
    """

    column: str
    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = "int64"
    sizes: tuple[int, ...] = ()
    start: tuple[int, ...] = ()

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture (H, W, C), as for `ObservationLayout`."""
        return self.kind == "Box" and self.dtype == "uint8" and len(self.shape) == 3 and self.shape[-1] in (1, 3, 4)

    @property
    def is_vector(self) -> bool:
        """Whether Gymnasium flattens it into a fixed set of numbers, and it is no picture or volume."""
        return self.kind in _NUMBERS and len(self.shape) <= 2

    def flatten(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Recorded rows (R, …) as the environment's flattened ones: discrete values become one-hot.

        Raises:
            DataError: for rows of another shape, or values that are none of the space's.
        """
        if rows.shape[1:] != self.shape:
            raise DataError(
                f"column {self.column!r} has shape {rows.shape[1:]} a row, metadata.json says {self.shape}:"
                " write the data set again with Minari"
            )
        if not self.sizes:
            return rows
        values = rows.reshape(len(rows), -1).astype(np.int64) - np.array(self.start)
        if ((values < 0) | (values >= np.array(self.sizes))).any():
            raise DataError(
                f"column {self.column!r} holds values that are not of its space {self.kind}"
                f"{self.sizes}: write the data set again with Minari"
            )
        encoded = np.zeros((len(rows), sum(self.sizes)), np.float32)
        offsets = np.cumsum([0, *self.sizes[:-1]])
        np.put_along_axis(encoded, values + offsets, 1, axis=1)
        return encoded


def leaves(text: object, root: str, index: str) -> tuple[Leaf, ...]:
    """The columns of a space that Minari keeps as JSON within JSON, in the space's order; none where it is unknown.

    Args:
        text: the JSON.
        root: the name of the column or group.
        index: how the data call the entries of a Tuple, such as "_index_{}".
    """
    try:
        space = json.loads(text) if isinstance(text, str) else {}
        return tuple(_leaves(space, root, index)) if isinstance(space, dict) and space else ()
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(
            f"metadata.json describes its {root} by no space of Gymnasium: write the data set again with Minari"
        ) from error


def check_actions(spaces: tuple[Leaf, ...]) -> None:
    """See that actions are one vector of continuous numbers.

    Raises:
        DataError: saying what they are.
    """
    if not spaces:
        return
    what = f"{spaces[0].kind}{spaces[0].shape or spaces[0].sizes or ''}" if len(spaces) == 1 else "several spaces"
    one = spaces[0]
    if len(spaces) > 1 or one.column != "actions":
        raise DataError(f"has actions of {what}, wanted one Box: choose continuous ones in episodes.columns.action")
    if one.kind != "Box" or np.dtype(one.dtype).kind != "f":
        raise DataError(
            f"has actions of {what} {one.dtype}, so they are discrete, which is not supported: use a data "
            "set of continuous actions"
        )
    if len(one.shape) > 1:
        raise DataError(f"has actions of {what}, wanted a Box of one dimension: record them with a flat Box")


def _leaves(space: dict[str, Any], column: str, index: str) -> Iterator[Leaf]:
    kind, parts = str(space["type"]), space.get("subspaces")
    if kind == "Dict":
        for key, part in parts.items():  # type: ignore[union-attr]
            yield from _leaves(part, f"{column}/{key}", index)
    elif kind == "Tuple":
        for i, part in enumerate(parts):  # type: ignore[arg-type]
            yield from _leaves(part, f"{column}/{index.format(i)}", index)
    elif kind == "Discrete":
        yield Leaf(column, kind, sizes=(_size(space["n"]),), start=(int(space.get("start", 0)),))
    elif kind == "MultiDiscrete":
        sizes = np.asarray(space["nvec"])
        start = np.asarray(space.get("start", np.zeros_like(sizes)))
        flat = tuple(_size(n) for n in sizes.reshape(-1))
        yield Leaf(column, kind, sizes.shape, sizes=flat, start=tuple(int(n) for n in start.reshape(-1)))
    elif kind == "MultiBinary":
        n = space["n"]
        yield Leaf(column, kind, tuple(_size(side) for side in n) if isinstance(n, list) else (_size(n),), "int8")
    elif kind == "Box":
        yield Leaf(column, kind, tuple(_size(side) for side in space["shape"]), np.dtype(space["dtype"]).name)
    else:
        yield Leaf(column, kind)


def _size(value: Any) -> int:
    size = int(value)
    if not 0 < size < math.inf or size > 2**31:
        raise ValueError(f"impossible size {value}")
    return size
