"""What does `phaseb` cost before the work: help, and imports?

    python benchmarks/startup.py [--quick] [--repeats 5] [--out FILE]

Every figure is of a fresh process, by the clock and in processor time. `--quick` looks once. What a whole run costs
beside its work is measured by `pipeline.py`.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fresh import once
from paired import show

WAYS = {
    "phaseb --help": ["-m", "phaseb.cli", "--help"],
    "import torch": ["-c", "import torch"],
    "import ray": ["-c", "import ray"],
    "import of all stages": ["-c", "import phaseb.stages.registry"],
}
BARS = {"phaseb --help": "< 0.5 s"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    measured = {name: [once(words) for _ in range(repeats)] for name, words in WAYS.items()}
    middle = {name: [statistics.median(part) for part in zip(*seen, strict=True)] for name, seen in measured.items()}
    rows = [
        (name, f"{clock:.2f} s, of processors {spent:.2f} s", BARS.get(name, ""))
        for name, (clock, spent) in middle.items()
    ]
    show(f"Starting, median of {repeats}", rows, {"benchmark": "startup", **middle}, options.out)


if __name__ == "__main__":
    main()
