"""How many trials a study needs, and a schedule in random order under blind labels."""

import csv
import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from phaseb.errors import ConfigError
from phaseb.robot_trials.study import Study, analyse
from phaseb.runtime.seeding import numpy_generator

COLUMNS = (
    "seq",
    "pair",
    "condition",
    "arm",
    "reset",
    "operator",
    "success",
    "score",
    "status",
    "invalid_reason",
    "notes",
)
"""Of the schedule. All but `pair`, `reset` and `score` are named as by fieldtrial."""
NUM_SCREENED, NUM_STUDIES, STEP, MARGIN = 200, 1000, 1.05, 0.02
"""Simulated studies of a number of trials that is tried, and of one that passes; the ratio of two such numbers; and
power beyond what is asked, for what so few studies leave unknown."""
MOST_TRIALS = 2000
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"

Draw = Callable[[np.random.Generator, int], tuple[NDArray[np.float64], NDArray[np.float64]]]


def plan(study: Study, baseline: float, power: float, score_std: float = 1.0, seed: int = 0) -> Study:
    """The study with the least number of trials that finds its gain with a chance of `power`.

    Outcomes of a pair are taken as independent. Pairs that share their luck need fewer trials.

    Args:
        study: with the `gain` to find; its `num_trials` is not used.
        baseline: share of successes of the control.
        power: chance to find the gain.
        score_std: standard deviation of a score.

    Raises:
        ConfigError: for a gain that cannot be, or that would need more than MOST_TRIALS trials.
    """
    draw = _draw(study, baseline, score_std)
    shares = (baseline, baseline + study.gain)
    variance = 2 * score_std**2 if study.outcome == "score" else sum(p * (1 - p) for p in shares)
    z = stats.norm.ppf(study.confidence) + stats.norm.ppf(power)
    trials = max(4, int(z**2 * variance / study.gain**2))
    while trials <= MOST_TRIALS:
        asked = _with(study, trials, power)
        passes = power_of(asked, draw, NUM_SCREENED, seed) >= power - MARGIN
        # Other random numbers: the first number of trials that passes a screen has been lucky.
        if passes and power_of(asked, draw, NUM_STUDIES, seed + 1) >= min(power + MARGIN, 0.995):
            return asked
        trials = max(trials + 1, int(trials * STEP))
    raise ConfigError(f"a gain of {study.gain:g} needs more than {MOST_TRIALS} trials of each policy; ask for more")


def power_of(study: Study, draw: Draw, num_studies: int, seed: int) -> float:
    """Share of simulated studies in which the candidate is found better."""
    rng = numpy_generator(seed, "robot trials")
    found = [analyse(study, *draw(rng, study.num_trials))[-1].verdict == "better" for _ in range(num_studies)]
    return float(np.mean(found))


def successes(baseline: float, gain: float) -> Draw:
    """Independent successes of two policies."""

    def draw(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return (rng.random(n) < baseline + gain).astype(float), (rng.random(n) < baseline).astype(float)

    return draw


def _draw(study: Study, baseline: float, score_std: float) -> Draw:
    if study.gain <= 0:
        raise ConfigError(f"--gain={study.gain:g} must be above 0")
    if study.outcome == "success":
        if not 0 < baseline < 1 or baseline + study.gain > 1:
            raise ConfigError(f"--baseline={baseline:g} and --gain={study.gain:g} must be shares, their sum at most 1")
        return successes(baseline, study.gain)

    def draw(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return rng.normal(study.gain, score_std, n), rng.normal(0.0, score_std, n)

    return draw


def _with(study: Study, trials: int, power: float) -> Study:
    return Study(**{**study.to_json(), "num_trials": trials, "power": power})


def blind_labels(seed: int) -> dict[str, str]:
    """Two labels that say nothing, and whose they are."""
    rng = numpy_generator(seed, "blind labels")
    first, second = rng.choice(list(LETTERS), 2, replace=False).tolist()
    return {f"{first}{rng.integers(10, 100)}": "candidate", f"{second}{rng.integers(10, 100)}": "control"}


def schedule(study: Study, seed: int) -> str:
    """The trials in random order as CSV, with empty columns for the operator to fill.

    Of paired trials, each pair starts from one condition; which policy goes first is balanced over each four pairs.
    """
    rng = numpy_generator(seed, "schedule")
    labels = sorted(study.labels)
    fours = [rng.permutation([0, 0, 1, 1]) for _ in range(-(-study.num_trials // 4))]
    firsts = np.concatenate(fours)[: study.num_trials]
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    order = [(pair, labels[first ^ second]) for pair, first in enumerate(firsts.tolist()) for second in (0, 1)]
    for i, (pair, label) in enumerate(order):
        row: dict[str, object] = {"seq": i + 1, "arm": label}
        if study.paired:
            row |= {"pair": pair + 1, "condition": f"start-{pair + 1:03d}"}
        writer.writerow(row)
    return file.getvalue()
