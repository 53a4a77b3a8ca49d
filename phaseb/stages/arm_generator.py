"""Which generator each arm of a run learns from, where the evidence chooses it."""

from typing import Any

from phaseb.config.arms import CHOSEN, Arm
from phaseb.config.root import Config
from phaseb.runtime.storage import Store

FILE = ("dynamics", "chosen.json")
FAILED = "failed.json"
"""In the folder of a generator that cannot be rolled out: why."""


def choice_of(store: Store) -> dict[str, Any]:
    """The content of `dynamics/chosen.json`; empty where the run chose nothing."""
    return dict(store.read_json(*FILE)) if store.exists(*FILE) else {}


def generator_of(arm: Arm, store: Store) -> str | None:
    """The generator that an arm of a run learns from; None where it learns from recorded data alone."""
    if not arm.is_synthetic:
        return None
    name: str | None = arm.config.generator
    if name == CHOSEN:
        name = choice_of(store).get("generator")
    return None if name is None or store.exists("dynamics", name, FAILED) else name


def served_generator(config: Config, arm: str, store: Store) -> str | None:
    """The generator that an arm learns from, by the arm's name; None for an unknown arm."""
    found = config.generator_of(arm)
    return choice_of(store).get("generator") if found == CHOSEN else found


def branched_generators(config: Config, store: Store) -> tuple[str, ...]:
    """Generators in which the policies of a run branch, the chosen one by its name."""
    named = (generator_of(arm, store) for arm in config.arms.trained if arm.config.rollouts == "branched")
    return tuple(dict.fromkeys(name for name in named if name is not None))
