"""What does a search cost beside its trainings, how many trials a second can the driver handle, and what does it hold?

    OMP_NUM_THREADS=1 python benchmarks/searches.py [throughput overhead memory scale] [--trials 1000] [--json FILE]

throughput: trials of a learner that does nothing, two at a time, random points, one report each; also the driver's
own CPU time for each, which a busy machine changes less, and its resident size after a tenth of them and at the end.
overhead: trials that compute for `--work-s` seconds of CPU, one at a time, against the same learners in one plain
process, before and after; both in wall time, so on an idle machine.
memory: the world model's own learner on `--gb` of latents, one trial at a time and two; the largest proportional set
size (memory shared by n processes counts 1/n in each) of the driver and all its Ray processes together.
scale: what the driver does for one more trial once there are T, in CPU seconds: a proposal, the record of its end; and
reading T records for a resume.
"""

import argparse
import json
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from phaseb.config.run import ResourcesConfig
from phaseb.config.tuning import StudyConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.ray_session import ray_session
from phaseb.runtime.storage import Store
from phaseb.tuning.dynamics import DynamicsObjective
from phaseb.tuning.search import OptunaPoints
from phaseb.tuning.study import run_study
from phaseb.tuning.trial_store import TrialRecord, TrialStore, best_trials, trial_key
from phaseb.tuning.validation import load_study

STEPS = 10
LENGTH, LATENTS, ACTIONS = 60, 16, 2


class BusyLearner:
    """Computes for `dynamics.gru.input_noise` CPU seconds over its steps; learns nothing."""

    def __init__(self, config: Any) -> None:
        self.num_steps = config.dynamics.gru.num_steps
        self._work_s = config.dynamics.gru.input_noise / self.num_steps

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

    sections = ("dynamics.gru",)
    steps = "dynamics.gru.num_steps"

    def metrics(self, config: Any) -> Mapping[str, str]:
        return {"height": "the point's own value"}

    def prepare(self, config: Any, callbacks: Any) -> Any:
        return np.zeros(10)

    def make_learner(self, config: Any, data: Any, context: WorkerContext) -> BusyLearner:
        return BusyLearner(config)

    def measure(self, learner: Any, config: Any, data: Any, seed: int, split: str = "dev") -> dict[str, float]:
        return {"height": config.dynamics.gru.weights.trust}


class Large(DynamicsObjective):
    """The world model's objective over as many made-up episodes as GB say; dev and test are small."""

    def prepare(self, config: Any, callbacks: Any) -> Trajectories:
        bytes_each = 4 * ((LENGTH + 1) * LATENTS + LENGTH * (ACTIONS + 2))
        num = int(float(os.environ["SEARCHES_GB"]) * 1e9 / bytes_each)
        rng = np.random.default_rng(0)
        few = rng.normal(size=(1000, LENGTH + 1, LATENTS)).cumsum(1).astype(np.float32) / 5
        rows = np.arange(num) % 1000
        zeros = np.zeros((num, LENGTH), np.float32)
        actions = rng.uniform(-1, 1, (1000, LENGTH, ACTIONS)).astype(np.float32)[rows]
        splits = ("train",) * (num - 40) + ("dev",) * 20 + ("test",) * 20
        return Trajectories(
            few[rows], actions, zeros + 1, zeros, np.full(num, LENGTH), tuple(map(str, range(num))), splits
        )


def study(folder: Path, name: str, trials: int, work_s: float, concurrency: int) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "job": "searches:Busy",
                "metrics": {"name": "height"},
                "scheduler": {"kind": "none"},
                "overrides": {"dynamics.gru.num_steps": STEPS, "dynamics.gru.input_noise": work_s},
                "space": {"dynamics.gru.weights.trust": {"uniform": [0.0, 1.0]}},
                "search": {"algorithm": "random"},
                "budget": {"trials": trials},
                "concurrency": concurrency,
                "resources": {"cpus": 0.5},
                "reports": 1,
                "confirm": {"top": 0},
                "keep_checkpoints": 0,
            }
        )
    )
    return path


def plain_s(path: Path, trials: int) -> float:
    """The same learners, one after the other, in this process."""
    checked = load_study(path)
    started = time.monotonic()
    for _ in range(trials):
        learner = checked.objective.make_learner(checked.config, None, WorkerContext(0))
        for step in range(learner.num_steps):
            learner.step(step)
    return time.monotonic() - started


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def throughput(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    with ray_session(ResourcesConfig(object_store_gb=0.2)):
        run_study(str(study(folder, "warm", max(10, arguments.trials // 10), 0.0, 2)))
        found = {"driver_mb_early": rss_mb()}
        before = time.process_time()
        result = run_study(str(study(folder, "many", arguments.trials, 0.0, 2)))
        found["driver_cpu_ms_a_trial"] = 1000 * (time.process_time() - before) / arguments.trials
        found["trials_per_s"] = arguments.trials / result.seconds
        found["driver_mb_late"] = rss_mb()
    home = folder / "runs/default/studies/many"
    found["record_bytes"] = float(np.mean([p.stat().st_size for p in (home / "trials").iterdir()]))
    found["study_db_bytes_a_trial"] = (home / "study.db").stat().st_size / arguments.trials
    found["tensorboard_bytes_a_trial"] = sum(p.stat().st_size for p in (home / "tensorboard").glob("*/*")) / (
        arguments.trials
    )
    return found


def overhead(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    with ray_session(ResourcesConfig(object_store_gb=0.2)):
        run_study(str(study(folder, "first", 2, 0.0, 1)))
        busy = study(folder, "busy", 8, arguments.work_s, 1)
        before = plain_s(busy, 4)
        searched = run_study(str(busy)).seconds / 8
        plain = (before + plain_s(busy, 4)) / 8
    return {
        "plain_s_a_trial": plain,
        "search_s_a_trial": searched,
        "overhead_s_a_trial": searched - plain,
        "overhead_share": searched / plain - 1,
    }


class Peak(threading.Thread):
    """The largest proportional set size of this process and all below it, looked at a few times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mb, self.over = 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.3):
            self.mb = max(self.mb, sum(map(self._pss_mb, self._tree())))

    def _tree(self) -> list[int]:
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
        found = [os.getpid()]
        for process in found:
            found += [child for child, parent in parents.items() if parent == process]
        return found

    @staticmethod
    def _pss_mb(process: int) -> float:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0.0
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def memory(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    os.environ["SEARCHES_GB"] = str(arguments.gb)
    found = {}
    for at_once in (1, 2):
        path = study(folder, f"large{at_once}", 2, 0.0, at_once)
        tree = yaml.safe_load(path.read_text())
        tree |= {"job": "searches:Large", "metrics": {"name": "latent_distance"}, "confirm": {"top": 0}}
        tree["overrides"] = {"dynamics.gru.num_steps": arguments.steps}
        tree["space"] = {"dynamics.gru.learning_rate": {"uniform": [0.0005, 0.001]}}
        path.write_text(yaml.safe_dump(tree))
        with ray_session(ResourcesConfig(object_store_gb=1.3 * arguments.gb + 0.2)):
            peak = Peak()
            peak.start()
            run_study(str(path))
            peak.over.set()
        found[f"peak_mb_{at_once}_at_once"] = peak.mb
    return {**found, "memory_ratio": found["peak_mb_2_at_once"] / found["peak_mb_1_at_once"]}


def scale(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    space = {f"dynamics.gru.weights.{n}": {"loguniform": [0.01, 1.0]} for n in ("trust", "feat", "var")}
    rng, found = np.random.default_rng(0), {}
    for trials in (100, 1_000, 10_000):
        store = Store.at(folder / f"records{trials}")
        records = TrialStore(store)
        for number in range(trials):
            point = {name: float(10 ** rng.uniform(-2, 0)) for name in space}
            rows = [{"steps": float(s), "loss": float(rng.random()), "seconds": 1.0} for s in (3, 9, 27)]
            records.put(TrialRecord(trial_key(point, 0), point, 0, number=number, state="done", rows=rows))
        found[f"resume_read_s_{trials}"] = cpu_s(lambda at=store: TrialStore(at))
        past = records.phase("search")
        for algorithm in ("random", "tpe"):
            config = StudyConfig.model_validate(
                {
                    "metrics": {"name": "loss"},
                    "space": space,
                    "search": {"algorithm": algorithm},
                }
            )
            points = OptunaPoints(config, 0, past, [], [], None)
            found[f"{algorithm}_proposal_s_{trials}"] = cpu_s(lambda p=points: p.suggest("x"))
        config = config.metrics[0]
        found[f"ranking_s_{trials}"] = cpu_s(lambda r=records, m=config: best_trials(r.phase("search"), m))
    return found


def cpu_s(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


PARTS = {"throughput": throughput, "overhead": overhead, "memory": memory, "scale": scale}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--work-s", type=float, default=10.0)
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=20, help="of memory: optimiser steps of a trial")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    here = str(Path(__file__).parent)  # where trials import their objective from
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    found: dict[str, float] = {}
    for part in arguments.parts or PARTS:
        found |= PARTS[part](folder, arguments)
    for name, value in found.items():
        print(f"{name:<28} {value:12.4f}")
    text = json.dumps({"benchmark": "searches", "trials": arguments.trials, **found})
    print(text)
    if arguments.json:
        Path(arguments.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
