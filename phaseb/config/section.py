"""What every part of the configuration is: frozen, closed to unknown keys, documented field by field."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen group of settings. Unknown keys are errors; each field carries its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
