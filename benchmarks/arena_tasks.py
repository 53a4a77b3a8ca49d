"""The tasks of the arena: which file, which world, which public scale. Nothing else is set by task.

`PHASEB_ARENA` names the folder of the files. They are plain NPZ in phaseb's layout, made from public data sets:
NeoRL-2 (CC BY 4.0), D4RL's medium sets as published with TSRL (MIT), the Adroit demonstrations (Apache-2.0), and the
UR3 cycles of UCI 963 (CC BY 4.0).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium

FOLDER = "PHASEB_ARENA"
FIRST_SEED = 1_000_000
"""Seed of the first evaluation episode, the default of `evaluation.first_seed`; peers play the same episodes."""


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name: of the task.
        world: `environment.id`; none where policies cannot be measured.
        max_steps: steps of an episode.
        file: of the episodes, in the folder; empty where the world makes its own.
        scale: returns that score 0 and 100.
        num_train: training episodes drawn anew by each seed; 0: all of the file.
        held_out: file of further episodes, for dev and test; empty where the program splits one file.
        endless: whether the task goes on until the time limit, so that recorded pieces are compared by reward a step.
        measure: what is earned: return, or net_value_per_hour.
        published: scores that others reached on the whole data set.
    """

    name: str
    world: str
    max_steps: int
    file: str = ""
    scale: tuple[float, float] = (0.0, 100.0)
    num_train: int = 0
    held_out: str = ""
    endless: bool = False
    measure: str = "return"
    published: Mapping[str, float] = field(default_factory=dict)

    def score(self, earned: Any) -> Any:
        """A return, or an array of them, on the public scale."""
        low, high = self.scale
        return 100 * (earned - low) / (high - low)


HOPPER, CHEETAH, DOOR = (-20.27, 3234.3), (-280.18, 12135.0), (-56.5, 2880.6)
DMSD_PUBLISHED = {"BC": 65.1, "CQL": 70.2, "EDAC": 78.7, "MCQ": 77.8, "TD3+BC": 60.0, "MOPO": 68.2, "MOBILE": 64.4}
SHC_PUBLISHED = {"BC": 70.2, "CQL": 71.2, "EDAC": 53.1, "MCQ": 54.7, "TD3+BC": 68.6, "MOPO": 23.7, "MOBILE": 8.7}
DOOR_PUBLISHED = {"BC": 2.3, "CQL": 5.5, "AWAC": 4.6, "IQL": 3.3, "ReBRAC": -0.1, "EDAC": -0.1}
ORACLE = 946.0
"""$/h of the controller with full knowledge in the built-in cell, from benchmarks/oracle.py."""


def _dmsd(num_train: int) -> Task:
    published = DMSD_PUBLISHED if num_train == 1000 else {}
    return Task(
        f"dmsd-{num_train}",
        "arena_worlds:DMSD",
        100,
        "dmsd-train.npz",
        (30.6, 849.51),
        num_train,
        "dmsd-val.npz",
        published=published,
    )


TASKS = {
    task.name: task
    for task in (
        Task("cell-50", "workcell", 60, scale=(0.0, ORACLE), num_train=50, measure="net_value_per_hour"),
        Task(
            "safety-half-cheetah",
            "arena_worlds:SafetyHalfCheetah",
            1000,
            "safety-half-cheetah-train.npz",
            (-283.0, 2507.0),
            held_out="safety-half-cheetah-val.npz",
            endless=True,
            published=SHC_PUBLISHED,
        ),
        *map(_dmsd, (15, 50, 100, 1000)),
        Task("hopper-medium-1pct", "Hopper-v5", 1000, "hopper-medium-1pct.npz", HOPPER),
        Task("hopper-medium-replay-1of40", "Hopper-v5", 1000, "hopper-medium-replay-1of40.npz", HOPPER),
        Task("halfcheetah-medium-1pct", "HalfCheetah-v5", 1000, "halfcheetah-medium-1pct.npz", CHEETAH, endless=True),
        Task("door-human", "arena_worlds:Door", 300, "door-human.npz", DOOR, published=DOOR_PUBLISHED),
        Task("ur3", "none", 1, "ur3-cobotops.parquet"),
    )
}
"""The tasks by name, in the order of the table."""


def data_folder() -> Path:
    """The folder of the files.

    Raises:
        SystemExit: where the variable is not set, or names no folder.
    """
    folder = os.environ.get(FOLDER, "")
    if not folder or not Path(folder).is_dir():
        raise SystemExit(f"{FOLDER}={folder!r} is no folder: set it to the folder of the arena's NPZ files")
    return Path(folder)


def make_world(task: Task) -> "gymnasium.Env[Any, Any]":
    """One environment of a task other than the built-in cell."""
    module, _, name = task.world.partition(":")
    if module == "arena_worlds":
        import arena_worlds

        made: gymnasium.Env[Any, Any] = getattr(arena_worlds, name)()
        return made
    return gymnasium.make(task.world)
