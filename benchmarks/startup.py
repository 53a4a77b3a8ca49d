"""What does `phaseb` cost before and beside the work: help, imports, a run with nothing to do, a run of trivial work?

    python benchmarks/startup.py [--quick] [--repeats 5] [--out FILE]

Every figure is of a fresh process, by the clock and in processor time of it and its children. The run of trivial work
is all nine stages on a few episodes with a few steps a training; afterwards the same command finds nothing to do.
`--quick` leaves it out and looks at the others once.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from paired import show

AGAIN, TRIVIAL_RUN = "phaseb run again, nothing to do", "phaseb run, trivial work"
TRIVIAL = (
    "episodes.num_train=8", "episodes.num_dev=4", "episodes.num_test=8", "environment.observation=state",
    "latents.num_steps=2", "latents.decoder_steps=2", "world_model.num_steps=2", "world_model.num_members=2",
    "synthesis.num_episodes=8", "trust.num_steps=2", "policy.num_steps=4", "policy.width=16",
    "evaluation.num_episodes=2", "judge.rungs=[real]",
)  # fmt: skip


def once(words: Sequence[str]) -> tuple[float, float]:
    """Seconds by the clock and of processors that a command takes."""
    before, started = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-500:]}")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    with tempfile.TemporaryDirectory() as folder:
        run = ["-m", "phaseb.cli", "run", f"run.dir={folder}/run", *TRIVIAL]
        ways = {
            "phaseb --help": ["-m", "phaseb.cli", "--help"], "import torch": ["-c", "import torch"],
            "import ray": ["-c", "import ray"], "import of all stages": ["-c", "import phaseb.runs.stages"],
        }  # fmt: skip
        measured = {}
        if not options.quick:
            measured[TRIVIAL_RUN] = [once(run)]
            ways[AGAIN] = run
        measured |= {name: [once(words) for _ in range(repeats)] for name, words in ways.items()}
    bars = {AGAIN: "≤ 3 s", TRIVIAL_RUN: "≤ 60 s", "phaseb --help": "< 0.5 s"}
    middle = {name: [statistics.median(part) for part in zip(*seen, strict=True)] for name, seen in measured.items()}
    rows = [(name, f"{clock:.2f} s, of processors {spent:.2f} s", bars.get(name, ""))
            for name, (clock, spent) in middle.items()]  # fmt: skip
    show(f"Starting, median of {repeats} (trivial work once)", rows, {"benchmark": "startup", **middle}, options.out)


if __name__ == "__main__":
    main()
