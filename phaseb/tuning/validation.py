"""A study checked before its first trial: every path, range, condition and metric, all errors at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from phaseb.config.cluster import check_file
from phaseb.config.load import dotted_paths, load_config, merge, nearest
from phaseb.config.root import Config
from phaseb.config.tuning import Parameter, StudyConfig, study_name
from phaseb.errors import ConfigError
from phaseb.tuning.objective import Objective, find_objective
from phaseb.tuning.space import in_order, unflatten
from phaseb.tuning.trackers.tracker import missing

MOVABLE = ("run", "resources", "report", "training")
"""Sections that say where and how a run is carried out: searching them would compare nothing."""


@dataclass(frozen=True)
class CheckedStudy:
    """A study that can start.

    Attributes:
        base: the config whose run directory holds the data; `config` is the same with the study's overrides.
    """

    name: str
    study: StudyConfig
    base: Config
    config: Config
    objective: Objective


def load_study(path: str | Path) -> CheckedStudy:
    """Read a study file and check all of it.

    Raises:
        ConfigError: naming every fault at once.
    """
    study = check_file(StudyConfig, path)
    base = load_config(Path(path).expanduser().parent / study.config if study.config else None)
    objective = find_objective(study.job)
    faults = [*_override_faults(study, base), *_space_faults(study, base, objective)]
    faults += [*_metric_faults(study, base, objective), *missing(study)]
    if not faults and study.scheduler.kind == "pbt":
        faults = _change_faults(study, base, objective)
    if faults:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in faults))
    config = Config.model_validate(merge(base.model_dump(mode="json"), unflatten(study.overrides)))
    return CheckedStudy(study_name(study, path), study, base, config, objective)


def _override_faults(study: StudyConfig, base: Config) -> list[str]:
    faults = [fault for name, value in study.overrides.items() for fault in _value_faults(name, [value], base)]
    return [f"overrides.{fault}" for fault in faults]


def _space_faults(study: StudyConfig, base: Config, objective: Objective) -> list[str]:
    faults = []
    for name, parameter in study.space.items():
        found = _value_faults(name, parameter.extremes(), base)
        if not found and not name.startswith(tuple(f"{s}." for s in objective.sections)):
            found = [f"{name} does not change what {study.job} does; that is {', '.join(objective.sections)}"]
        if not found and name == objective.steps:
            found = [f"{name} sets how long a trial is, which the scheduler decides; fix it under overrides"]
        faults += [f"space.{fault}" for fault in found]
        faults += [f"space.{name}.when: {fault}" for fault in _condition_faults(name, parameter, study.space)]
    if not faults:
        try:
            in_order(study.space)
        except ValueError as error:
            faults.append(f"space: {error}")
    return faults


def _value_faults(name: str, values: list[Any], base: Config) -> list[str]:
    known = dotted_paths()
    if name not in known and not _is_under(name, known):
        return [f"{name}: no such setting{nearest(name, list(known))}"]
    if name.split(".")[0] in MOVABLE:
        return [f"{name} says how a run is carried out, not what it computes"]
    faults = []
    tree = base.model_dump(mode="json")
    for value in values:
        try:
            Config.model_validate(merge(tree, unflatten({name: value})))
        except ValidationError as error:
            faults += [f"{name} = {value!r}: {fault['msg']}" for fault in error.errors()]
    return list(dict.fromkeys(faults))


def _is_under(name: str, known: Mapping[str, Any]) -> bool:
    """Whether a name points into a setting that is itself a mapping."""
    return any(name.startswith(f"{path}.") for path in known)


def _condition_faults(name: str, parameter: Parameter, space: Mapping[str, Parameter]) -> list[str]:
    faults = []
    for other, values in parameter.when.items():
        if other not in space:
            faults.append(f"{other} is not searched{nearest(other, [n for n in space if n != name])}")
        elif space[other].choice is None:
            faults.append(f"{other} is a range; a condition needs a choice")
        elif absent := [v for v in values if v not in (space[other].choice or [])]:
            faults.append(f"{other} is never {', '.join(map(repr, absent))}; it is one of {space[other].choice}")
    return faults


def _change_faults(study: StudyConfig, base: Config, objective: Objective) -> list[str]:
    """What of the space cannot change while a model trains, as a population's settings do."""
    path = getattr(objective, "changes", "")
    if not path:
        return [f"scheduler.kind: pbt changes settings on the way, and {study.job} has none that can change so"]
    prefix, faults, tree = path.rpartition(".")[0] + ".", [], base.model_dump(mode="json")
    for name, parameter in study.space.items():
        for value in parameter.extremes():
            change = {"at": 0.5, "set": {name.removeprefix(prefix): value}}
            try:
                Config.model_validate(merge(tree, unflatten({path: [change]})))
            except ValidationError as error:
                faults += [f"space.{name}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()]
                break
    return faults


def _metric_faults(study: StudyConfig, base: Config, objective: Objective) -> list[str]:
    known = list(objective.metrics(base))
    return [
        f"metrics: {study.job} does not report {metric.name!r}{nearest(metric.name, known)}; it has {', '.join(known)}"
        for metric in study.metrics
        if metric.name not in known
    ]
