"""The search space: drawing points from it, in an order in which every condition is settled before it is asked.

A point is `{dotted path: value}` and holds only the settings that exist under its conditions.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from phaseb.config.load import merge
from phaseb.config.root import Config
from phaseb.config.tuning import Parameter

Point = dict[str, Any]


class Draws(Protocol):
    """The part of an Optuna trial that draws values."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


def in_order(space: Mapping[str, Parameter]) -> list[str]:
    """The parameters, each after those that its condition names.

    Raises:
        ValueError: where conditions go round in a circle.
    """
    order: list[str] = []
    waiting = list(space)
    while waiting:
        ready = [n for n in waiting if all(c in order for c in space[n].when if c in space)]
        if not ready:
            raise ValueError(f"conditions go round in a circle: {', '.join(waiting)}")
        order += ready
        waiting = [n for n in waiting if n not in ready]
    return order


def exists(parameter: Parameter, point: Mapping[str, Any]) -> bool:
    """Whether a parameter's conditions hold at a point that settles them."""
    return all(name in point and point[name] in values for name, values in parameter.when.items())


def draw(space: Mapping[str, Parameter], trial: Draws) -> Point:
    """One point, drawn by an Optuna trial (or what behaves like one)."""
    point: Point = {}
    for name in in_order(space):
        parameter = space[name]
        if exists(parameter, point):
            point[name] = _draw_one(name, parameter, trial)
    return point


def grid(space: Mapping[str, Parameter]) -> Iterator[Point]:
    """Every point of the grid, each once, though conditions leave parameters out."""
    order = in_order(space)

    def extend(point: Point, rest: Sequence[str]) -> Iterator[Point]:
        if not rest:
            yield point
            return
        name, *later = rest
        if not exists(space[name], point):
            yield from extend(point, later)
            return
        for value in _levels(space[name]):
            yield from extend({**point, name: value}, later)

    return extend({}, order)


def defaults(space: Mapping[str, Parameter], config: Config) -> Point | None:
    """The base config's own values as a point; None where one of them lies outside the space."""
    tree = config.model_dump(mode="json")
    point: Point = {}
    for name in in_order(space):
        if exists(space[name], point):
            value = lookup(tree, name)
            if not _contains(space[name], value):
                return None
            point[name] = value
    return point


def apply_point(config: Config, point: Mapping[str, Any]) -> Config:
    """The config with a point's values in place, checked."""
    return Config.model_validate(merge(config.model_dump(mode="json"), unflatten(point)))


def unflatten(point: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`."""
    tree: dict[str, Any] = {}
    for name, value in point.items():
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def lookup(tree: Mapping[str, Any], name: str) -> Any:
    node: Any = tree
    for part in name.split("."):
        node = node[part]
    return node


def _draw_one(name: str, parameter: Parameter, trial: Draws) -> Any:
    if parameter.choice is not None:
        # Optuna wants plain values, a YAML list may hold lists: choose by number then.
        if all(value is None or isinstance(value, (bool, int, float, str)) for value in parameter.choice):
            return trial.suggest_categorical(name, parameter.choice)
        return parameter.choice[int(trial.suggest_categorical(name, list(range(len(parameter.choice)))))]
    low, high = parameter.bounds
    if parameter.kind == "integer":
        step = int(parameter.step or 1)
        return trial.suggest_int(name, int(low), int(high), step=step, log=parameter.log)
    return trial.suggest_float(name, low, high, step=parameter.step, log=parameter.kind == "loguniform")


def _levels(parameter: Parameter) -> list[Any]:
    if parameter.choice is not None:
        return list(parameter.choice)
    low, high = parameter.bounds
    if parameter.step is not None:
        num = math.floor((high - low) / parameter.step + 1e-9) + 1
        return [low + i * parameter.step for i in range(num)]
    by_ratio = parameter.kind == "loguniform" or parameter.log
    values = (np.geomspace if by_ratio else np.linspace)(low, high, parameter.num)
    if parameter.kind == "integer":
        return [key for key, _ in itertools.groupby(round(v) for v in values)]
    return [float(v) for v in values]


def _contains(parameter: Parameter, value: Any) -> bool:
    if parameter.choice is not None:
        return value in parameter.choice
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    low, high = parameter.bounds
    if not low <= value <= high or (parameter.kind == "integer" and value != int(value)):
        return False
    return parameter.step is None or math.isclose((value - low) / parameter.step % 1, 0, abs_tol=1e-9)
