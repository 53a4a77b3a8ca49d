"""Settings of the gate, of the discriminator inside the ensemble's training, and of the judges."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from phaseb.config.section import Section, is_plugin

DISCRIMINATOR_SHARE = 0.5
"""Share of the training episodes that are the discriminator's own, where there is one; the gate has the rest."""


class DiscriminatorConfig(Section):
    """The discriminator in the ensemble's training. It neither gates nor judges."""

    form: Literal["windows", "report"] = Field(
        "windows",
        description="windows: spectrally normalised, over windows at several lags; report: episode network on "
        "six features",
    )


class GateConfig(Section):
    """The gate: from trust to the weight of each synthetic transition."""

    cut_quantile: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="share of real training episodes that the gate would cut, by networks that did not see them",
    )


class TrustConfig(Section):
    """Trust networks of episodes and transitions, their calibration and the gate; and the discriminator."""

    num_folds: int = Field(
        5,
        ge=2,
        le=20,
        description="folds of the cross-fit; every real episode is scored by networks that did not see it",
    )
    num_steps: int = Field(400, ge=1, description="optimiser steps")
    batch_size: int = Field(48, ge=8, description="episodes a fold in each step, over all workers")
    learning_rate: float = Field(4e-3, gt=0, description="peak learning rate of AdamW (warm-up, then cosine decay)")
    num_corruptions: int = Field(600, ge=2, description="corrupted and warped copies of real episodes to learn from")
    gate: GateConfig = Field(GateConfig(), description="from trust to weights")
    discriminator: DiscriminatorConfig = Field(
        DiscriminatorConfig(), description="the discriminator inside the ensemble's training"
    )


FAMILIES = ("episode_trees", "window_trees", "gru")
"""The families of judges that are built in."""


def _known(name: str) -> str:
    if name not in FAMILIES and not is_plugin(name):
        raise ValueError(f"is none of {', '.join(FAMILIES)} nor module:function of your own")
    return name


Family = Annotated[str, AfterValidator(_known)]


Rung = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""The name of a rung, or its number of steps."""


class JudgeConfig(Section):
    """Judges: pairs, rungs, noise levels and families of classifiers."""

    generators: tuple[str, ...] = Field((), description="generators that are judged; empty: all that arms use")
    num_pairs: int = Field(200, ge=10, description="matched pairs a rung; fewer if fewer exist")
    rungs: tuple[Rung, ...] = Field(
        ("simulator", "real", "encode_decode", "one_step", "5", "15", "30", "60"),
        description="rungs of the ladder; a number is that many open-loop steps; rungs that a run cannot supply "
        "are left out",
    )
    sigmas: tuple[float, ...] = Field(
        (0.0, 0.05, 0.2, 0.5),
        min_length=1,
        description="standard deviations of the noise added to both sides, in units of z",
    )
    families: tuple[Family, ...] = Field(
        FAMILIES,
        min_length=1,
        description=f"families of classifiers ({', '.join(FAMILIES)}, or module:function); the worst counts",
    )
    num_folds: int = Field(5, ge=2, le=20, description="folds of the cross-fit; a matched pair is always in one fold")
    num_permutations: int = Field(1000, ge=19, description="label swaps within pairs for the null distribution")
    episode_rounds: int = Field(60, ge=1, description="boosting rounds on episode features")

    @property
    def clone_steps(self) -> int:
        """Optimiser steps of the cloned operator that acts in branched rollouts: five a pair."""
        return 5 * self.num_pairs
