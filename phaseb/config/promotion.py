"""Settings of the decision which policy is shipped."""

from typing import Literal

from pydantic import Field

from phaseb.config.section import Section


class PromotionConfig(Section):
    """Do no harm, as a decision: a candidate ships only where paired tests show it better than every control.

    Controls are the arms that learn from real episodes alone. Else the best of them ships.
    """

    candidates: tuple[str, ...] = Field(
        ("trust_weighted",), description="arms that may be promoted; the error is shared between them"
    )
    rule: Literal["better", "not_worse"] = Field("better", description="what the test has to show of the candidate")
    min_gain: float = Field(
        0.02, ge=0,
        description="for better: what must be gained, as a share of the control's value or, where that is more, of "
        "what a recorded episode earns or loses on average; below it a gain is called none",
    )  # fmt: skip
    margin: float = Field(0.05, ge=0, lt=1, description="for not_worse: share of the control's value that may be lost")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the test: 1 - this is the rate of false promotions")
    max_episodes: int | None = Field(
        None, ge=4,
        description="physics episodes that the decision may spend, over all arms that it compares; null: for each arm "
        "half as many as there are training ones",
    )  # fmt: skip
    looks: int = Field(3, ge=1, le=20, description="times that the sequential test looks at its evidence")
    first_seed: int = Field(2_000_000, ge=0, description="seed of its first episode: none that evaluation reports")
    estimate_penalty: float = Field(
        1.0, ge=0, description="without physics: spread of the estimators, in standard deviations, held against a gain"
    )
    max_departure: float = Field(
        1.25, ge=1,
        description="without physics: how many times as far from the recorded actions as the first control's a "
        "policy's may be, root mean squared",
    )  # fmt: skip
