"""Every setting with its type, default and meaning, as the schema has them."""

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from phaseb.config.root import Config


@dataclass(frozen=True)
class Setting:
    """One dotted name. `limits` are the bounds of a number, `choices` the words that are allowed.

    A mapping of sections by name, such as `arms`, has one setting a field: `arms.NAME.learner`. `by_name` holds the
    defaults of the names that are built in.
    """

    path: str
    kind: str
    default: str
    limits: str
    choices: tuple[str, ...]
    description: str
    by_name: Mapping[str, str] = field(default_factory=dict)


def settings(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[Setting]:
    """All settings in the order of the schema; those of named sections once, under NAME."""
    named = _named_section(model)
    for name, info in model.model_fields.items():
        path, inner = f"{prefix}{name}", _section(info.annotation)
        if inner is None:
            yield _setting(path, info)
        elif inner is not named:
            yield from settings(inner, f"{path}.")
    if named is not None:
        for name, info in named.model_fields.items():
            yield _setting(f"{prefix}NAME.{name}", info, _defaults_by_name(model, named, name))


def _setting(path: str, info: FieldInfo, by_name: Mapping[str, str] | None = None) -> Setting:
    kind, choices = _kind(info.annotation), _choices(info.annotation)
    return Setting(path, kind, _default(info), _limits(info), choices, info.description or "", by_name or {})


def _named_section(model: type[BaseModel]) -> type[BaseModel] | None:
    """The section that any further key of a section holds; None where unknown keys are errors."""
    if model.model_config.get("extra") != "allow":
        return None
    _, section = typing.get_args(typing.get_type_hints(model)["__pydantic_extra__"])
    return typing.cast(type[BaseModel], section)


def _defaults_by_name(model: type[BaseModel], named: type[BaseModel], setting: str) -> dict[str, str]:
    """The value of a setting in each section that is built in, where that section sets it."""
    built_in = {n: f.default for n, f in model.model_fields.items() if _section(f.annotation) is named}
    return {n: _plain(getattr(s, setting)) for n, s in built_in.items() if setting in s.model_fields_set}


def section_titles(model: type[BaseModel] = Config) -> dict[str, str]:
    """What each section is about: the first line of its docstring."""
    titles = {}
    for name, info in model.model_fields.items():
        inner = _section(info.annotation)
        titles[name] = ((inner.__doc__ if inner else "") or "").strip().split("\n")[0]
    return titles


def _section(annotation: Any) -> type[BaseModel] | None:
    candidates = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _choices(annotation: Any) -> tuple[str, ...]:
    """The words of every Literal within a type."""
    if typing.get_origin(annotation) is typing.Literal:
        return tuple(str(word) for word in typing.get_args(annotation))
    return tuple(word for part in typing.get_args(annotation) if part is not annotation for word in _choices(part))


def _kind(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return "word"
    if typing.get_origin(annotation) is typing.Annotated:
        return _kind(typing.get_args(annotation)[0])
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        parts = [_kind(part) for part in typing.get_args(annotation)]
        return " or ".join(dict.fromkeys(parts))
    origin = typing.get_origin(annotation) or annotation
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
    if origin in (tuple, list):
        inner = [part for part in typing.get_args(annotation) if part is not Ellipsis]
        return f"list of {_kind(inner[0])}s" if inner else "list"
    return names.get(origin, "mapping" if origin is dict else str(getattr(origin, "__name__", origin)))


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_plain, value))}]"
    return _plain(value)


def _plain(value: Any) -> str:
    words = {None: "null", True: "true", False: "false", "": '""'}
    known = value is None or isinstance(value, (bool, str))
    return words.get(value, str(value)) if known else f"{value:g}" if isinstance(value, float) else str(value)


def _limits(info: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [
        f"{sign} {_plain(limit)}"
        for bound in info.metadata
        for name, sign in signs.items()
        if (limit := getattr(bound, name, None)) is not None
    ]
    return ", ".join(found)
