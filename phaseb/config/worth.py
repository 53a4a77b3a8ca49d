"""Settings of what each brick of episodes is worth to the shipped policy."""

from typing import Literal

from pydantic import Field

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
