"""Settings of what each brick of episodes is worth to the shipped policy."""

from typing import Literal, Self

from pydantic import Field, model_validator

from phaseb.config.section import Section


class WorthConfig(Section):
    """How a policy's value is traced back to the bricks of episodes that it learned from."""

    method: Literal["estimate", "leave_out"] = Field(
        "leave_out",
        description="estimate: whose transitions the policy lives by; leave_out: policies trained without each brick, "
        "one training a brick, with the estimate beside it",
    )
    num_episodes: int = Field(20, ge=1, description="episodes of the policy at work that the estimate looks at")
    first_seed: int = Field(3_000_000, ge=0, description="seed of the first of them")
    neighbours: int = Field(5, ge=1, description="recorded transitions that each step of the policy is credited to")
    candidates: int = Field(64, ge=2, description="starts that are looked at for what to collect next")
    curve: tuple[float, ...] = Field(
        (),
        description="shares of the training episodes, ascending to 1, such as 0.25, 0.5, 1, that the best control is "
        "trained on, beside the candidate on the first: how many real episodes synthetic data is worth there; "
        "empty: unasked",
    )

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        shares = list(self.curve)
        if shares and (len(shares) < 2 or shares != sorted(set(shares)) or shares[0] <= 0 or shares[-1] != 1):
            raise ValueError(f"curve={shares} must be two or more shares that ascend from above 0 to 1")
        return self
