"""`phaseb trials plan` and `phaseb trials decide`: the schedule, its key, and the decision in a run directory."""

import math
from typing import Any

from phaseb.errors import ConfigError, DataError
from phaseb.pipeline.run_directory import TRIALS, RunDirectory
from phaseb.robot_trials.plan import plan, schedule
from phaseb.robot_trials.study import Study, analyse, decision
from phaseb.robot_trials.table import read_trials
from phaseb.runtime.storage import Store

CommandResult = tuple[dict[str, Any], list[str]]
"""A result as JSON and as lines."""


def write_plan(path: str, study: Study, baseline: float, power: float, score_std: float, seed: int) -> CommandResult:
    """Write a schedule, and beside it the key that says which label is whose and fixes the test.

    Args:
        path: of the schedule, a CSV file.
        study: with the gain to find; its `num_trials` is chosen here.
        baseline, power, score_std: as for `plan`.
        seed: of the order.

    Raises:
        ConfigError: where a file is there already, or for terms that cannot be.
    """
    store, name, key = _place(path)
    taken = [one for one in (name, key) if store.exists(one)]
    if taken:
        raise ConfigError(f"{store.path(taken[0])} is there already; name another file")
    for setting, value in (("--power", power), ("--confidence", study.confidence)):
        if not 0.5 < value < 1:
            raise ConfigError(f"{setting}={value:g} must lie between 0.5 and 1")
    if study.looks < 1 or study.candidate == study.control:
        raise ConfigError("a study needs a look or more, and two policies of different names")
    study = plan(study, baseline, power, score_std, seed)
    store.write_text(schedule(study, seed), name)
    store.write_json(study.to_json(), key)
    kind = "pairs" if study.paired else "trials of each policy"
    gain = f"{100 * study.gain:g} points" if study.outcome == "success" else f"{study.gain:g} of score"
    return study.to_json() | {"schedule": store.path(name), "key": store.path(key)}, [
        f"{study.num_trials} {kind} find a gain of {gain} with a chance of {power:.0%} or more",
        f"looks after {', '.join(map(str, study.trials_of_look))} {kind}; false promotions at most "
        f"{1 - study.confidence:.0%} over all looks",
        f"schedule: {store.path(name)} (labels {' and '.join(sorted(study.labels))}); keep its key from the operator: "
        f"{store.path(key)}",
    ]


def decide_trials(path: str, run: str | None) -> CommandResult:
    """Say what the trials so far decide, and have a run ship it.

    Args:
        path: of the filled schedule.
        run: a run directory whose arms the candidate and the control are; it exports what is decided from then on.

    Raises:
        DataError: for a table or key that cannot be read, or where the run lacks a policy of one of the names.
    """
    store, name, key = _place(path)
    if not store.exists(name):
        raise DataError(f"no such file: {path}")
    if not store.exists(key):
        raise DataError(
            f"{path} has no key {key} beside it, which names the policies and the test; write both with "
            "`phaseb trials plan`"
        )
    study = Study.from_json({k: math.nan if v is None else v for k, v in store.read_json(key).items()})
    trials = read_trials(store.read_text(name), study, name)
    there = min(len(trials.candidate), len(trials.control))
    looks = analyse(study, trials.candidate, trials.control)
    found = decision(study, looks, there) | {"notes": list(trials.notes)}
    lines = [found["reason"], *(f"note: {note}" for note in trials.notes)]
    if run is not None:
        lines.append(_record(run, study, found))
    return found, lines


def _record(run: str, study: Study, found: dict[str, Any]) -> str:
    directory = RunDirectory.existing(run)
    absent = [arm for arm in (study.candidate, study.control) if not directory.store.exists("policy", arm)]
    evaluated = directory.stage("evaluate").get("key", "")
    if absent or not evaluated:
        needs = f"has no policy {absent[0]}" if absent else "has not evaluated its policies"
        raise DataError(f"{run} {needs}: the trials must be of arms of the run, evaluated before")
    if not found["decided"]:
        return f"{run} is unchanged: nothing is decided yet"
    directory.store.write_json(found | {"evaluate_key": evaluated}, TRIALS)
    return f"{run} ships {found['shipped']} from now on ({TRIALS})"


def _place(path: str) -> tuple[Store, str, str]:
    """The folder, the name of the schedule, and that of its key."""
    folder, _, name = path.rpartition("/")
    if not name.endswith(".csv"):
        raise ConfigError(f"{path} must be a file that ends in .csv")
    return Store.at(folder or "."), name, f"{name.removesuffix('.csv')}.key.json"
