"""A study's folder, opened for the first time or again; a study that changed in between is refused."""

from collections.abc import Iterator
from typing import Any

from phaseb.errors import ConfigError
from phaseb.runtime.storage import Store, to_jsonable
from phaseb.tuning.validation import CheckedStudy

MAY_CHANGE = ("budget", "concurrency", "resources", "trackers", "max_retries", "keep_checkpoints", "confirm")
"""Parts of a study that a resume may change: they move no finished trial."""


def open_study(checked: CheckedStudy, store: Store, resume: bool) -> None:
    """Make the study's folder, or see that what is there is this very study.

    Raises:
        ConfigError: where the study exists and no resume was asked for, or was started with other settings; where
            a resume was asked for and there is none.
    """
    tree = to_jsonable(checked.study.model_dump(mode="json") | {"base": checked.config.model_dump(mode="json")})
    for movable in ("resources", "run", "report"):
        tree["base"].pop(movable)
    tree["seed"] = checked.config.run.seed
    if store.exists("study.json"):
        if not resume:
            raise ConfigError(
                f"study {checked.name} is in {store.root} already; go on with --resume, or give this one another name"
            )
        old = store.read_json("study.json")
        changes = [change for change in _differences(old, tree) if change.split()[0].split(".")[0] not in MAY_CHANGE]
        if changes:
            raise ConfigError(
                f"study {checked.name} in {store.root} was started with other settings, so its trials do not compare: "
                + "; ".join(changes)
            )
    elif resume:
        raise ConfigError(
            f"there is no study {checked.name} in {store.root} to go on with; start it without --resume, or set "
            "run.dir of its base config to where it was started"
        )
    store.write_json(tree, "study.json")


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        yield f"{path} was {old!r}, is {new!r}"
