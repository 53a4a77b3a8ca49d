"""What does a search cost beside its trainings, and how many trials a second can the driver handle?

    OMP_NUM_THREADS=1 python benchmarks/searches.py [--trials 1000] [--work-s 2.0] [--json FILE]

Throughput: trials of a learner that does nothing, two at a time, random points, one report each. Overhead: trials that
compute for `--work-s` seconds of CPU, one at a time, against the same learners in one plain process, before and after.
Memory: the driver's resident size after a tenth of the trials and at the end.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from phaseb.config.resources import ResourcesConfig
from phaseb.data_parallel import LearnerContext
from phaseb.runtime import ray_session
from phaseb.tuning.check import load_study
from phaseb.tuning.study import run_study

STEPS = 10


class BusyLearner:
    """Computes for `world_model.explosion` CPU seconds over its steps; learns nothing."""

    def __init__(self, config: Any) -> None:
        self.num_steps = config.world_model.num_steps
        self._work_s = (config.world_model.explosion - 1.0) / self.num_steps

    def step(self, step: int) -> dict[str, float]:
        end, x = time.process_time() + self._work_s, np.ones(64)
        while time.process_time() < end:
            x = np.sqrt(x + 1.0)
        return {}

    def validate(self, step: int) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"nothing": 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None


class Busy:
    """The objective."""

    sections = ("world_model",)
    steps = "world_model.num_steps"

    def metrics(self, config: Any) -> Mapping[str, str]:
        return {"height": "the point's own value"}

    def prepare(self, config: Any, callbacks: Any) -> Any:
        return np.zeros(10)

    def make_learner(self, config: Any, data: Any, context: LearnerContext) -> BusyLearner:
        return BusyLearner(config)

    def measure(self, learner: Any, config: Any, data: Any, seed: int, split: str = "dev") -> dict[str, float]:
        return {"height": config.world_model.weights.trust}


def study(folder: Path, name: str, trials: int, work_s: float, concurrency: int) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({
        "job": "searches:Busy", "metrics": {"name": "height"}, "scheduler": {"kind": "none"},
        "overrides": {"world_model.num_steps": STEPS, "world_model.explosion": 1.0 + work_s},
        "space": {"world_model.weights.trust": {"uniform": [0.0, 1.0]}}, "search": {"algorithm": "random"},
        "budget": {"trials": trials}, "concurrency": concurrency, "resources": {"cpus": 0.5}, "reports": 1,
        "confirm": {"top": 0}, "keep_checkpoints": 0,
    }))  # fmt: skip
    return path


def plain_s(path: Path, trials: int) -> float:
    """The same learners, one after the other, in this process."""
    checked = load_study(path)
    started = time.monotonic()
    for _ in range(trials):
        learner = checked.objective.make_learner(checked.config, None, LearnerContext(0))
        for step in range(learner.num_steps):
            learner.step(step)
    return time.monotonic() - started


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--work-s", type=float, default=2.0)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    found: dict[str, float] = {}
    with ray_session(ResourcesConfig(object_store_gb=0.2)):
        few = max(10, arguments.trials // 10)
        run_study(str(study(folder, "warm", few, 0.0, 2)))
        found["driver_mb_early"] = rss_mb()
        result = run_study(str(study(folder, "many", arguments.trials, 0.0, 2)))
        found["trials_per_s"] = arguments.trials / result.seconds
        found["driver_mb_late"] = rss_mb()
        busy = study(folder, "busy", 5, arguments.work_s, 1)
        before = plain_s(busy, 3)
        searched = run_study(str(busy)).seconds
        plain = (before + plain_s(busy, 3)) / 6
        found["plain_s_a_trial"], found["search_s_a_trial"] = plain, searched / 5
        found["overhead_s_a_trial"] = searched / 5 - plain
    for name, value in found.items():
        print(f"{name:<22} {value:10.3f}")
    text = json.dumps({"benchmark": "searches", "trials": arguments.trials, **found})
    print(text)
    if arguments.json:
        Path(arguments.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
