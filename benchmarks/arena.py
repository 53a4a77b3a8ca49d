"""The arena: whole runs on public tasks, the same defaults on all of them, one task and seed at a time.

    PHASEB_ARENA=FOLDER python benchmarks/arena.py --tasks dmsd-50 hopper-medium-1pct --seeds 0 1 2 3 4
    PHASEB_ARENA=FOLDER python benchmarks/arena.py --tasks dmsd-50 --seeds 0 --quick --out quick.jsonl
    python benchmarks/arena.py --summary

A seed redraws splits, models, gate and policies, and the episodes where the task has more than it uses. Each finished
run adds a row to `--out`; a row that exists is not run again, and a run that was stopped goes on. `--lean` makes
small what no policy depends on: stored rollouts, judges and closed loops. `--judged` plays closed loops in full, for
the table of generators. `--quick` shows nothing but that everything works.
KEY.PATH=VALUE words come first.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import arena_material
from arena_page import table
from arena_rows import make_row
from arena_tasks import TASKS, Task
from json_rows import add_row, read_rows
from processor_time import ProcessorTime

HERE = Path(__file__).parent
ROWS = HERE.parent / "docs" / "data" / "arena.jsonl"
ARMS = "arms.names=[behaviour_cloning,real_only,real_only_edac,trust_weighted]"
"""The floor, our model-free learners (that of the gated arm comes with its controls and its placebo), the gated arm."""
EPISODES = 50
LEAN = (
    "synthesis.num_episodes=32",
    "judge.num_pairs=40",
    "judge.families=[episode_trees]",
    "judge.sigmas=[0.0]",
    "judge.num_permutations=19",
    "judge.episode_rounds=10",
    "closed_loop.num_episodes=10",
    "closed_loop.num_branches=10",
)
"""What no policy depends on, made small: stored rollouts, which no arm draws, and the judges."""
JUDGED = (
    "synthesis.num_episodes=32",
    "judge.num_pairs=40",
    "judge.families=[episode_trees,window_trees]",
    "judge.num_permutations=19",
    "judge.episode_rounds=10",
)
QUICK = (
    *LEAN,
    "dynamics.gru.num_steps=40",
    "dynamics.gru.num_members=2",
    "dynamics.gru.horizon.start=4",
    "dynamics.gru.gp_correction.steps=5",
    "dynamics.gru.gp_correction.max_transitions=200",
    "dynamics.gru.hidden_size=8",
    "dynamics.gru.head_size=8",
    "dynamics.gru.batch_size=16",
    "dynamics.gru.gp_correction.num_hyperparameter_points=40",
    "policy.num_steps=60",
    "policy.batch_size=32",
    "policy.width=16",
    "policy.augmentation.starts=16",
    "policy.augmentation.refresh_steps=20",
    "dynamics.gp.max_transitions=60",
    "dynamics.gp.steps=2",
    "dynamics.gp.num_hyperparameter_points=30",
    "negatives.num_steps=6",
    "negatives.num_episodes=8",
    "trust.num_steps=12",
    "trust.num_corruptions=16",
    "evaluation.num_episodes=4",
    "promotion.max_episodes=12",
    "promotion.looks=1",
    "latents.decoder_steps=20",
    "latents.num_steps=20",
)
FORMS: dict[str, tuple[str, ...]] = {"whole": (), "lean": LEAN, "judged": JUDGED, "quick": QUICK}


def run_task(task: Task, seed: int, folder: Path, form: str, words: list[str]) -> dict[str, object]:
    """Run a task with a seed to its end, and return its row.

    Raises:
        SystemExit: where the run refuses or fails; its lines are shown above.
    """
    run = folder / f"{task.name}-{seed}"
    run.mkdir(parents=True, exist_ok=True)
    given = arena_material.settings(task, run / "material", seed)
    given += [f"run.dir={run / 'run'}", f"run.seed={seed}", "arms.num_seeds=1", ARMS]
    given += [f"environment.id={task.world}", f"environment.max_steps={task.max_steps}"]
    given += ["environment.observation=state", f"evaluation.num_episodes={EPISODES}", "run.on_change=redo"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    started = time.monotonic()
    with (run / "log.txt").open("a") as log:
        command = [sys.executable, "-m", "phaseb.cli", "run", *given, *FORMS[form], *words]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            with ProcessorTime(process.pid) as spent:
                code = process.wait()
        finally:
            process.terminate()  # where this process was told to leave: the run goes on another time
            process.wait()
    if code:
        raise SystemExit(f"{task.name}, seed {seed}: exit code {code}: {(run / 'log.txt').read_text()[-2000:]}")
    arena_material.write_for_peers(run / "run", run / "train.npz")
    minutes = {"core_minutes": round(spent.seconds / 60, 2), "minutes": round((time.monotonic() - started) / 60, 2)}
    return make_row(task, run / "run") | minutes | {"form": form, "words": words}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="KEY.PATH=VALUE")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--quick", dest="form", action="store_const", const="quick", default="whole")
    parser.add_argument("--lean", dest="form", action="store_const", const="lean")
    parser.add_argument("--judged", dest="form", action="store_const", const="judged")
    parser.add_argument("--summary", action="store_true", help="print the table of the rows, and run nothing")
    parser.add_argument("--dir", type=Path, default=Path("runs/arena"), help="folder of the run directories")
    parser.add_argument("--out", type=Path, default=ROWS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not options.summary:
        refused = []
        for name in options.tasks:
            for seed in options.seeds:
                done = {(row["task"], row["seed"]) for row in read_rows(options.out) if "peer" not in row}
                if (name, seed) in done:
                    continue
                try:
                    add_row(options.out, run_task(TASKS[name], seed, options.dir, options.form, options.words))
                except SystemExit as error:
                    refused.append(str(error))
                    print(error, file=sys.stderr)
        if refused:
            raise SystemExit(f"{len(refused)} runs did not end")
    print(table(read_rows(options.out)))


if __name__ == "__main__":
    main()
