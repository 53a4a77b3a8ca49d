"""The program as a user types it, and a config so small that a whole run takes seconds."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

PROGRAM = str(Path(sys.executable).with_name("phaseb"))
RETRY_S = 540

STAGES = (
    "collect",
    "encode",
    "dynamics/gru",
    "dynamics/gp",
    "choice",
    "negatives",
    "bricks",
    "synthesize",
    "trust",
    "baselines",
    "policy",
    "judge",
    "closed_loop/baselines",
    "closed_loop",
    "evaluate",
)

TINY: dict[str, Any] = {
    "episodes": {"num_train": 10, "num_dev": 4, "num_test": 12, "rows_per_shard": 32},
    "environment": {"observation": "state", "max_steps": 20},
    "latents": {
        "num_dims": 8,
        "hidden": 16,
        "num_steps": 12,
        "num_groups": 2,
        "num_segments": 4,
        "segment_steps": 10,
        "decoder_steps": 5,
    },
    "dynamics": {
        "gru": {
            "num_members": 2,
            "hidden_size": 8,
            "head_size": 8,
            "num_steps": 12,
            "batch_size": 16,
            "gp_correction": {"max_transitions": 100, "num_hyperparameter_points": 40, "steps": 5},
            "horizon": {"steps": 20, "start": 4},
            "one_step_window": 5,
        },
        "gp": {"max_transitions": 50, "num_hyperparameter_points": 20, "steps": 2, "num_directions": 0},
    },
    "synthesis": {"num_episodes": 12, "horizon": 20},
    "negatives": {"num_steps": 6, "num_episodes": 8},
    "trust": {"num_folds": 2, "num_steps": 12, "batch_size": 8, "num_corruptions": 16},
    "judge": {
        "num_pairs": 12,
        "rungs": ["real", "one_step", "5", "20"],
        "sigmas": [0.0],
        "families": ["episode_trees"],
        "num_folds": 2,
        "num_permutations": 19,
        "episode_rounds": 4,
    },
    "arms": {"num_seeds": 2},
    "policy": {
        "num_steps": 12,
        "batch_size": 16,
        "width": 8,
        "augmentation": {"refresh_steps": 4, "starts": 8},
        "learners": {"sac": {"num_critics": 2}},
    },
    "evaluation": {"num_episodes": 6, "num_envs": 6, "fqe": {"num_members": 2}},
    "closed_loop": {"num_seeds": 1, "num_episodes": 10, "num_branches": 10},
    "promotion": {"max_episodes": 12, "looks": 1},
    "training": {"checkpoint_every_s": 1e-6, "log_every": 2, "validate_every": 4},
    "resources": {"num_workers": 0, "num_tasks": 1, "num_cpus": 2, "object_store_gb": 0.1},
}


def tiny(**sections: Mapping[str, Any]) -> dict[str, Any]:
    """The tiny config with sections laid over it."""
    tree = copy.deepcopy(TINY)
    for name, change in sections.items():
        tree[name] = {**tree.get(name, {}), **change}
    return tree


def write_config(folder: Path, name: str = "tiny", **sections: Mapping[str, Any]) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tiny(**sections)), encoding="utf-8")
    return path


def environment() -> dict[str, str]:
    """This process's environment without what a Ray of its own left in it."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return ours | {"OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}


def phaseb(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [PROGRAM, *map(str, words)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=RETRY_S,
        check=False,
    )


def strict_json(text: str) -> Any:
    """One JSON document; NaN and Inf, which JSON does not have, are errors."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def lineage(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


def leftovers(folder: Path) -> list[Path]:
    """Temporary files that a write left behind."""
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


def agree(one: object, other: object, where: str = "results") -> None:
    """Equal to float tolerance, all the way down; what is unknown on one side is unknown on the other."""
    if isinstance(other, dict):
        assert isinstance(one, dict), where
        assert one.keys() == other.keys(), where
        for name in other:
            agree(one[name], other[name], f"{where}.{name}")
    elif isinstance(other, float):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-9), where
    else:
        assert one == other, where
