"""What every part of the configuration is: frozen, closed to unknown keys, documented field by field."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen group of settings. Unknown keys are errors; each field carries its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def with_defaults(defaults: Mapping[str, Mapping[str, Any]], given: Any) -> Any:
    """A mapping of named sections, each laid over the default section of its name; anything else as it is."""
    if not isinstance(given, Mapping):
        return given
    laid = {name: {**defaults[name], **part} for name, part in given.items()
            if name in defaults and isinstance(part, Mapping)}  # fmt: skip
    return {**given, **laid}
