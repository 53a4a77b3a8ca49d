"""What does a `phaseb run` cost beside its work: all nine stages on trivial work, then again with nothing to do?

    python benchmarks/pipeline.py [--quick] [--repeats 5] [--out FILE] [KEY.PATH=VALUE ...]

Every run is a fresh process in a folder of its own: 20 episodes, a few steps a training and a fit, Ray started and
stopped. So its time is what any run pays: starts of Ray, of workers and actors, imports, checkpoints. Told are the
clock's and the processors' seconds of the whole command (of all its processes, which a busy machine stretches less than
the clock), the clock's of every stage as the run itself writes them into run.json, and what lies between the stages;
each the median over repeats. Afterwards the same command finds nothing to do. `--quick` does it once.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from fresh import once, watched
from paired import show

RUN, AGAIN, BETWEEN = "phaseb run, trivial work", "phaseb run again, nothing to do", "between the stages"
BARS = {RUN: "≤ 60 s", AGAIN: "≤ 3 s"}
TRIVIAL = (
    "episodes.num_train=8",
    "episodes.num_dev=4",
    "episodes.num_test=8",
    "environment.observation=state",
    "latents.num_steps=2",
    "latents.decoder_steps=2",
    "dynamics.gru.num_steps=2",
    "dynamics.gru.num_members=2",
    "negatives.num_steps=4",
    "synthesis.num_episodes=8",
    "trust.num_steps=2",
    "policy.num_steps=4",
    "policy.width=16",
    "evaluation.num_episodes=2",
    "judge.rungs=[real]",
    "judge.num_folds=2",
    "judge.families=[episode_trees]",
    "judge.num_permutations=19",
    "judge.episode_rounds=4",
    "trust.num_folds=2",
    "trust.num_corruptions=16",
    "dynamics.gp.max_transitions=50",
    "dynamics.gp.num_hyperparameter_points=20",
    "dynamics.gp.steps=2",
    "dynamics.gp.num_directions=0",
    "dynamics.gru.gp_correction.enabled=false",
)


def one_run(more: list[str]) -> dict[str, tuple[float, ...]]:
    """Seconds of a run, of its stages, and of the same command again."""
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        words = ["-m", "phaseb.cli", "run", f"run.dir={folder}/run", *TRIVIAL, *more]
        whole = watched(words)
        stages = json.loads(Path(folder, "run", "run.json").read_text())["stages"]
        found: dict[str, tuple[float, ...]] = {RUN: whole}
        found |= {name: (float(stage["seconds"]),) for name, stage in stages.items()}
        found[BETWEEN] = (whole[0] - sum(float(stage["seconds"]) for stage in stages.values()),)
        return found | {AGAIN: once(words)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out")
    parser.add_argument("words", nargs="*", metavar="KEY.PATH=VALUE", help="settings besides")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    runs = [one_run(options.words) for _ in range(repeats)]
    middle = {
        name: [statistics.median(part) for part in zip(*(run[name] for run in runs), strict=True)] for name in runs[0]
    }
    rows = []
    for name, seconds in middle.items():
        text = f"{seconds[0]:.2f} s" + (f", of processors {seconds[1]:.2f} s" if len(seconds) > 1 else "")
        rows.append((name, text, BARS.get(name, "")))
    result: dict[str, Any] = {"benchmark": "pipeline", "repeats": repeats, **middle}
    show(f"A run of trivial work, median of {repeats}", rows, result, options.out)


if __name__ == "__main__":
    main()
