"""Settings of the judges: fresh classifiers that say how far synthetic episodes can be told from real ones."""

from typing import Annotated

from pydantic import AfterValidator, Field

from phaseb.config.own import is_own
from phaseb.config.section import Section

FAMILIES = ("episode_trees", "window_trees", "gru")
"""The families of judges that are built in."""


def _known(name: str) -> str:
    if name not in FAMILIES and not is_own(name):
        raise ValueError(f"is none of {', '.join(FAMILIES)} nor module:function of your own")
    return name


Family = Annotated[str, AfterValidator(_known)]


class JudgeConfig(Section):
    """How many pairs are judged, at which rungs and noise levels, by which families of classifiers."""

    generators: tuple[str, ...] = Field((), description="generators that are judged; empty: all that arms use")
    num_pairs: int = Field(200, ge=10, description="matched pairs a rung is judged on; fewer where fewer exist")
    rungs: tuple[str, ...] = Field(
        ("simulator", "real", "encode_decode", "one_step", "5", "15", "30", "60"),
        description="rungs of the ladder, in the order of the stages they ask about; a number is that many open-loop "
        "steps; a rung that a run cannot supply (no simulator) is left out",
    )
    sigmas: tuple[float, ...] = Field(
        (0.0, 0.05, 0.2, 0.5), min_length=1,
        description="standard deviations of the noise added to both sides, in units of z",
    )  # fmt: skip
    noise_sigma: float = Field(
        0.2, ge=0, description="which of them judge_auc_noise is at; the last of them where it is not among them"
    )
    families: tuple[Family, ...] = Field(
        FAMILIES,
        min_length=1,
        description=f"families of classifiers ({', '.join(FAMILIES)}, or module:function); the worst counts",
    )
    clone_steps: int = Field(1000, ge=1, description="optimiser steps of the cloned operator of branched rollouts")
    num_folds: int = Field(5, ge=2, le=20, description="folds of the cross-fit; a matched pair is always in one fold")
    num_permutations: int = Field(1000, ge=19, description="label swaps within pairs that make the null distribution")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="confidence of the intervals")
    jump_auc: float = Field(0.05, gt=0, lt=0.5, description="rise of the worst judge's AUC that names a leaking rung")
    jump_p_value: float = Field(0.01, gt=0, lt=1, description="a rung leaks only where chance is less likely than this")

    episode_rounds: int = Field(60, ge=1, description="boosting rounds on episode features")
    window_rounds: int = Field(50, ge=1, description="boosting rounds on windows")
    max_leaves: int = Field(15, ge=2, description="leaves a tree")
    tree_learning_rate: float = Field(0.12, gt=0, le=1, description="shrinkage of the boosted trees")
    feature_share: float = Field(0.3, gt=0, le=1, description="share of the features that a split may choose from")
    window_steps: int = Field(8, ge=2, description="observations in a window")
    window_stride: int = Field(4, ge=1, description="steps between the starts of neighbouring windows")
    gru_units: int = Field(24, ge=1, description="hidden units of the recurrent judge")
    gru_steps: int = Field(100, ge=1, description="optimiser steps of the recurrent judge")
    gru_pairs: int = Field(32, ge=1, description="pairs in a batch of the recurrent judge")
    gru_learning_rate: float = Field(0.01, gt=0, description="peak learning rate of the recurrent judge (one cycle)")
    gru_weight_decay: float = Field(0.01, ge=0, description="weight decay of the recurrent judge")
