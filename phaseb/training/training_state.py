"""How far a training came, as its checkpoint tells it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from phaseb.errors import DataError
from phaseb.runtime.checkpoint import flatten, load_checkpoint, pack_checkpoint, unflatten, write_checkpoint
from phaseb.runtime.storage import Store

Report = Callable[[Mapping[str, float]], None]


@dataclass
class Progress:
    """How far a training came: the next step to make of how many, seconds spent, rows of metrics."""

    next_step: int
    num_steps: int
    seconds: float
    rows: list[dict[str, float]]

    @property
    def complete(self) -> bool:
        return self.next_step >= self.num_steps

    def to_json(self) -> dict[str, Any]:
        """What goes beside the tensors of a checkpoint."""
        return {
            "next_step": self.next_step,
            "num_steps": self.num_steps,
            "seconds": self.seconds,
            "rows": list(self.rows),
        }


def read_progress(store: Store, key: str) -> tuple[dict[str, Any], Progress] | None:
    """The state and the progress of a checkpoint; None where there is none under this key.

    Raises:
        DataError: where it was altered or is damaged.
    """
    if not store.exists("meta.json"):
        return None
    if store.read_json("meta.json").get("meta", {}).get("key") != key:
        return None
    tensors, meta = load_checkpoint(store)
    progress = Progress(int(meta["next_step"]), int(meta["num_steps"]), float(meta["seconds"]), meta["rows"])
    return unflatten(tensors, meta["rest"]), progress


def copy_checkpoint(source: Store, source_key: str, store: Store, key: str, num_steps: int) -> None:
    """Lay one training's checkpoint down where another, under another key and to another last step, goes on from it.

    Raises:
        DataError: where there is none, or it is damaged.
    """
    found = read_progress(source, source_key)
    if found is None:
        raise DataError(f"there is no checkpoint of {source_key} in {source.root} to go on from")
    tensors, rest = flatten(found[0])
    meta = {"key": key, **found[1].to_json(), "num_steps": num_steps, "rest": rest}
    write_checkpoint(store, *pack_checkpoint(tensors, meta))
