"""The base of every section: frozen, closed to unknown keys, documented field by field."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen group of settings. Unknown keys are errors; each field carries its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def is_own(name: str) -> bool:
    """Whether a name is of the form module:Class or module:function."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), attribute])
