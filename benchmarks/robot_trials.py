"""`phaseb trials`: how often equals are called different, and how often a planned gain is found.

    python benchmarks/robot_trials.py [--studies 2000] [--gain 0.2] [--baselines 0.3 0.6] [--seed 0]

Each study is simulated with independent successes, with the number of trials that `phaseb trials plan` asks for. The
planned and the simulated studies have different random numbers.
"""

import argparse
import json

from phaseb.robot_trials.plan import plan, power_of, successes
from phaseb.robot_trials.study import Study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--gain", type=float, default=0.2)
    parser.add_argument("--baselines", type=float, nargs="+", default=[0.3, 0.6])
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    rows = []
    print("design    baseline  trials  false    found")
    for paired in (True, False):
        for baseline in words.baselines:
            blank = Study("candidate", "control", {}, 0, paired=paired, gain=words.gain)
            study = plan(blank, baseline, 0.8, seed=words.seed)
            false, found = (
                power_of(study, successes(baseline, gain), words.studies, words.seed + 1000)
                for gain in (0.0, words.gain)
            )
            rows.append(
                {"paired": paired, "baseline": baseline, "trials": study.num_trials, "false": false, "found": found}
            )
            design = "paired" if paired else "unpaired"
            print(f"{design:<10}{baseline:<10g}{study.num_trials:<8}{false:<9.1%}{found:.1%}", flush=True)
    print(json.dumps({"studies": words.studies, "gain": words.gain, "seed": words.seed, "rows": rows}))


if __name__ == "__main__":
    main()
