"""What a run costs: by stage, the clock's seconds, the processors' seconds, and the seconds that the stage waited.

    python benchmarks/stage_profile.py [--out FILE] [KEY.PATH=VALUE ...]          # runs configs/demo.yaml
    python benchmarks/stage_profile.py --config configs/dev.yaml

Every process of the run is looked at each PERIOD_S. Ray names a worker after the task it is at, so its processor time
since the last look belongs to that task, and the task to a stage. Less than a period of each process is missed. A stage
waits while its processes together use less than WAITING of a core. Stages run beside each other: the clock's seconds
add up to more than the run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from paired import show

PERIOD_S = 0.25
WAITING = 0.1
TASKS = {
    "record_shard": "collect",
    "event_gp_fitter": "dynamics/gru",
    "_judge_one": "judge",
    "_train_in_task": "policy",
    "play_policies": "closed_loop",
    "branch_test": "closed_loop",
    "floor_plays": "closed_loop",
    "judge_arm": "closed_loop",
    "play": "evaluate",
    "_play": "evaluate",
}
"""Functions that stages send to tasks, and the stage; a stage's own task has its name."""
RAY, DRIVER = "Ray's own processes", "the command itself"

Used = dict[str, float]


def run(words: list[str], folder: str) -> tuple[float, list[tuple[float, Used]]]:
    """Seconds of `phaseb run`, and at each look the time and the processor seconds since the last one, by part."""
    looks: list[tuple[float, Used]] = []
    seen: dict[tuple[int, float], float] = {}
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "phaseb.cli", "run", *words, f"run.dir={folder}"])
    while process.poll() is None:
        looks.append((time.time(), _look(process.pid, seen)))
        time.sleep(PERIOD_S)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - started, looks


def _look(root: int, seen: dict[tuple[int, float], float]) -> Used:
    used: Used = defaultdict(float)
    try:
        family = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    except psutil.NoSuchProcess:
        return used
    for process in family:
        try:
            times, key = process.cpu_times(), (process.pid, process.create_time())
            part = DRIVER if process.pid == root else _part(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        now = times.user + times.system
        used[part] += now - seen.get(key, 0.0)
        seen[key] = now
    return used


def _part(title: str) -> str:
    """The stage of a process by the title that Ray gives it."""
    if not title.startswith("ray::"):
        return RAY
    task = title.removeprefix("ray::").split("(")[0].split(":")[0].strip()
    return RAY if task == "IDLE" else TASKS.get(task, task)


def table(seconds: float, looks: list[tuple[float, Used]], folder: str) -> dict[str, Any]:
    """The cost of each stage, in the order in which they started, and of what belongs to none."""
    stages = json.loads(Path(folder, "run.json").read_text())["stages"]
    parts: Used = defaultdict(float)
    for _, used in looks:
        for part, spent in used.items():
            parts[part] += spent
    rows = {}
    for name in sorted(stages, key=lambda name: stages[name]["started"]):
        began, ended = (datetime.fromisoformat(stages[name][key]).timestamp() for key in ("started", "ended"))
        inside = [used.get(name, 0.0) for at, used in looks if began <= at <= ended]
        waited = PERIOD_S * sum(spent < WAITING * PERIOD_S for spent in inside)
        rows[name] = {"clock_s": stages[name]["seconds"], "processor_s": parts.pop(name, 0.0), "waited_s": waited}
    return {"seconds": seconds, "processor_s": sum(sum(used.values()) for _, used in looks), "stages": rows} | {
        "others": dict(sorted(parts.items(), key=lambda item: -item[1]))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(Path(__file__).parents[1] / "configs/demo.yaml"))
    parser.add_argument("--dir", help="keep the run here; it must not exist")
    parser.add_argument("--out")
    parser.add_argument("words", nargs="*", metavar="KEY.PATH=VALUE", help="settings besides")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="profile-") as temporary:
        folder = options.dir or f"{temporary}/run"
        if Path(folder).exists():
            raise SystemExit(f"{folder} exists: a run that goes on would be measured in part")
        seconds, looks = run(["--config", options.config, *options.words], folder)
        result = table(seconds, looks, folder)
    rows = [
        (name, f"{row['clock_s']:.0f} s, processors {row['processor_s']:.0f} s, waited {row['waited_s']:.0f} s", "")
        for name, row in result["stages"].items()
    ]
    rows += [(part, f"processors {spent:.0f} s", "") for part, spent in result["others"].items()]
    rows.append(("the whole run", f"{seconds:.0f} s, processors {result['processor_s']:.0f} s", ""))
    show(f"phaseb run --config {Path(options.config).name} {' '.join(options.words)}", rows, result, options.out)


if __name__ == "__main__":
    main()
