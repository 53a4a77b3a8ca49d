"""Settings of how policies are measured, which one is shipped and what each brick of episodes is worth."""

from typing import Literal, Self

from pydantic import Field, model_validator

from phaseb.config.section import Section


class FqeConfig(Section):
    """Fitted Q evaluation: an estimate of a policy's return from recorded episodes."""

    num_members: int = Field(10, ge=2, description="value functions, each fitted on its own bootstrap of the episodes")


class EvaluationConfig(Section):
    """How policies are measured."""

    num_episodes: int = Field(200, ge=1, description="evaluation episodes a policy, each with its own seed")
    first_seed: int = Field(
        1_000_000, ge=0, description="seed of the first evaluation episode, apart from those of recorded episodes"
    )
    num_envs: int = Field(100, ge=1, description="episodes stepped side by side")
    step_limit_s: float = Field(300.0, gt=0, description="longest time of one step of all environments, s")
    fqe: FqeConfig = Field(default_factory=FqeConfig)


class ClosedLoopConfig(Section):
    """Policies played in closed loop in physics and in each generator, and branch tests."""

    num_seeds: int = Field(2, ge=1, description="seeds of each arm that are played")
    num_episodes: int = Field(50, ge=10, description="episodes that each policy plays, from the same starts")
    num_branches: int = Field(50, ge=10, description="branches of each kind of unrecorded actions")


LEAST_PAIRS = 25
"""Episodes an arm plays at most for a decision, where neither a budget nor more training episodes say more."""


class PromotionConfig(Section):
    """Paired tests that decide which policy is shipped: a candidate must beat every control.

    Controls are the arms that learn from real episodes alone. Else the best of them ships.
    """

    candidates: tuple[str, ...] = Field(
        ("trust_weighted",), description="arms that may be promoted; the error is shared between them"
    )
    rule: Literal["better", "not_worse"] = Field("better", description="hypothesis of the test")
    min_gain: float = Field(
        0.02,
        ge=0,
        description="for better: required gain, as a share of the control's value or of a recorded episode's "
        "mean, if larger",
    )
    margin: float = Field(0.05, ge=0, lt=1, description="for not_worse: share of the control's value that may be lost")
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="confidence of the test; 1 - this is the rate of false promotions"
    )
    max_episodes: int | None = Field(
        None,
        ge=4,
        description="physics episodes of the decision, over all arms; null: for each arm half the number of "
        "training episodes, but at least 25",
    )
    looks: int = Field(3, ge=1, le=20, description="interim analyses of the sequential test")
    first_seed: int = Field(2_000_000, ge=0, description="seed of its first episode: none that evaluation reports")


class WorthConfig(Section):
    """The value of each brick of episodes to the shipped policy."""

    method: Literal["estimate", "leave_out"] = Field(
        "leave_out",
        description="estimate: credit of the nearest recorded transitions; leave_out: one training without each "
        "brick, and the estimate",
    )
    curve: tuple[float, ...] = Field(
        (),
        description="ascending shares of the training episodes, such as 0.25, 0.5, 1, for episodes_worth; empty: off",
    )

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        shares = list(self.curve)
        if shares and (len(shares) < 2 or shares != sorted(set(shares)) or shares[0] <= 0 or shares[-1] != 1):
            raise ValueError(f"curve={shares} must be two or more shares that ascend from above 0 to 1")
        return self
