"""The arms: the ways to train a policy that a run compares, and how many seeds of each."""

from typing import Literal

from pydantic import Field

from phaseb.config.section import Section

Arm = Literal["real_only", "fixed_weight", "bounds_filter", "trust_weighted"]


class ArmsConfig(Section):
    """What is compared. Every arm trains with the same settings, seeds and budget; only its batches differ."""

    names: tuple[Arm, ...] = Field(
        ("real_only", "fixed_weight", "bounds_filter", "trust_weighted"),
        min_length=1,
        description="real_only; fixed_weight: ungated rollouts at a fixed share; bounds_filter: those whose mean and "
        "std lie in real bounds; trust_weighted: those that the gate trusts, as far as it trusts them",
    )
    num_seeds: int = Field(3, ge=1, description="seeds an arm; they share the run's data, encoder, model and gate")
    fixed_share: float = Field(0.1, ge=0, le=1, description="synthetic share of a batch of fixed_weight (the report's)")
    bounds_share: float = Field(0.1, ge=0, le=1, description="synthetic share of a batch of bounds_filter")
    trusted_share: float = Field(
        0.5, ge=0, le=1, description="largest synthetic share of a batch of trust_weighted: what full trust would give"
    )
    weighting: Literal["sampling", "loss"] = Field(
        "sampling", description="where trust_weighted's weights act: in what is drawn, or in the loss; never in both"
    )
    share_follows_trust: bool = Field(
        True, description="scale trust_weighted's share by the mean weight of the synthetic transitions"
    )
