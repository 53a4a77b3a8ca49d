"""The base of every section: frozen, closed to unknown keys, documented field by field."""

import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A frozen group of settings. Unknown keys are errors; each field carries its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _one_item_lists(cls, tree: Any) -> Any:
        """Read one value as a list of one where a list is wanted: `arms.names=real_only`."""
        if not isinstance(tree, dict):
            return tree
        return {name: [value] if _is_one_item(value) and cls._is_list(name) else value for name, value in tree.items()}

    @classmethod
    def _is_list(cls, name: Any) -> bool:
        field = cls.model_fields.get(name)
        if field is None or typing.get_origin(field.annotation) is not tuple:
            return False
        return Ellipsis in typing.get_args(field.annotation)


def _is_one_item(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != ""


def is_plugin(name: str) -> bool:
    """Whether a name is of the form module:Class or module:function."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), attribute])


def with_defaults(defaults: Mapping[str, Mapping[str, Any]], given: Any) -> Any:
    """A mapping of named sections, each laid over the default section of its name; anything else as it is."""
    if not isinstance(given, Mapping):
        return given
    laid = {
        name: {**defaults[name], **part}
        for name, part in given.items()
        if name in defaults and isinstance(part, Mapping)
    }
    return {**given, **laid}
