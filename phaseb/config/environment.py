"""Where policies are tried out, and where real episodes come from when they are collected."""

from typing import Literal, Self

from pydantic import Field, model_validator

from phaseb.config.section import Section


class WorkcellConfig(Section):
    """The built-in gantry cell: a cart on a rail, a part swinging from it, a gripper. Used where `id` is `workcell`."""

    cart_mass_kg: float = Field(1.0, gt=0, le=100, description="Mass of the cart on the rail")
    hook_mass_kg: float = Field(0.15, gt=0, le=10, description="Mass of the empty hook at the rope's end")
    rope_length_m: float = Field(1.0, gt=0.1, le=5, description="Length of the (rigid, massless) rope")
    max_force_n: float = Field(10.0, gt=0, le=1000, description="Force on the cart at full drive")
    part_mass_min_kg: float = Field(0.3, gt=0, le=50, description="Lightest part; each episode draws one mass")
    part_mass_max_kg: float = Field(0.9, gt=0, le=50, description="Heaviest part; each episode draws one mass")
    sensor_noise: float = Field(1.0, ge=0, le=100, description="Factor on the sensors' noise; 0 reads exactly")
    skilled_share: float = Field(0.3, ge=0, le=1, description="Share of recorded episodes by skilled operators")
    hasty_share: float = Field(0.3, ge=0, le=1, description="Share by hasty operators; the rest are average")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.part_mass_min_kg > self.part_mass_max_kg:
            raise ValueError(
                f"part_mass_min_kg={self.part_mass_min_kg} is above part_mass_max_kg={self.part_mass_max_kg}"
            )
        if self.skilled_share + self.hasty_share > 1:
            raise ValueError(f"skilled_share + hasty_share is {self.skilled_share + self.hasty_share:g}, more than 1")
        return self


class EnvironmentConfig(Section):
    """The environment that judges policies by physics."""

    id: str = Field(
        "workcell",
        min_length=1,
        description="workcell (built in), none (policies are judged without physics), a Gymnasium id, or module:Class",
    )
    max_steps: int = Field(60, ge=1, le=100_000, description="Steps after which an episode is cut off")
    observation: Literal["both", "state", "frames"] = Field(
        "both", description="What the built-in cell shows: camera frames, a state vector, or both"
    )
    workcell: WorkcellConfig = Field(default_factory=WorkcellConfig, description="The built-in cell's physics")
