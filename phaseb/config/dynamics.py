"""Generators: the GRU ensemble, the Gaussian processes and plug-ins, and how each is fitted."""

import functools
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from phaseb.config.section import Section, is_plugin

BUILT_IN = ("gru", "gp")
"""Names of the generators that are built in."""


class LossWeights(Section):
    """L = L_recon + trust·L_trust + feat·L_feat + var·L_var (the report's λ). Zero leaves a term out."""

    trust: float = Field(
        0.0, ge=0, description="λ_trust: weight of L_trust, the discriminator's loss on free-running rollouts"
    )
    feat: float = Field(
        0.0,
        ge=0,
        description="λ_feat: weight of L_feat, the distance of the discriminator's mean features, rollouts to real",
    )
    var: float = Field(0.0, ge=0, description="λ_var: weight of L_var, the change of the variance along rollouts")


class ReconWeights(Section):
    """The parts of L_recon that are latents' errors. Rewards and ends have fixed weights beside them."""

    one_step: float = Field(2.0, ge=0, description="weight of the error on short teacher-forced windows")
    rollout: float = Field(0.3, ge=0, description="weight of the error along the rollout at the training horizon")


class TeacherForcingConfig(Section):
    """Teacher forcing: probability of the real latent in a training rollout, over training."""

    schedule: Literal["constant", "linear", "exponential", "inverse_sigmoid"] = Field(
        "constant", description="form of the schedule from start to end"
    )
    start: float = Field(0.0, ge=0, le=1, description="probability of the real latent at the first step of training")
    end: float = Field(0.0, ge=0, le=1, description="probability from the end of the schedule on")
    until: float = Field(0.8, gt=0, le=1, description="share of training at which the schedule ends")


class HorizonConfig(Section):
    """Length of the training rollout. It should end at synthesis.horizon."""

    steps: int = Field(60, ge=1, description="training horizon; equal to synthesis.horizon unless you study the report")
    start: int = Field(10, ge=1, description="horizon at which the curriculum starts")


CHANGEABLE = (
    "weights.",
    "recon.",
    "teacher_forcing.",
    "horizon.",
    "loss",
    "learning_rate",
    "ema_decay",
    "input_noise",
    "batch_size",
    "one_step_window",
    "discriminator_from",
)
"""Settings, or groups of them, that may change while a model trains: none shapes the network or its inputs."""


class GPCorrectionConfig(Section):
    """Gaussian processes that correct the networks' next latent, one per kind of event."""

    enabled: bool = Field(
        True, description="take continuous dimensions from the processes where both agree; off with a learned variance"
    )
    max_transitions: int = Field(1500, ge=10, description="most transitions that a process is conditioned on")
    num_hyperparameter_points: int = Field(300, ge=10, description="transitions that hyperparameters are fitted to")
    steps: int = Field(60, ge=1, description="steps of Adam that fit the hyperparameters")


class Change(Section):
    """Settings that change at a point of the training."""

    at: float = Field(gt=0, lt=1, description="share of training from which these hold")
    set: dict[str, Any] = Field(description="setting of dynamics.gru by its dotted name: value")

    @field_validator("set")
    @classmethod
    def _may_change(cls, settings: dict[str, Any]) -> dict[str, Any]:
        fixed = [n for n in settings if not n.startswith(tuple(c for c in CHANGEABLE if c[-1] == "."))]
        if fixed := [name for name in fixed if name not in CHANGEABLE]:
            raise ValueError(f"{', '.join(fixed)} cannot change while a model trains; {', '.join(CHANGEABLE)} can")
        return settings


class GRUConfig(Section):
    """GRU dynamics in latent space with reward and end-of-episode heads, K members trained at once."""

    num_members: int = Field(3, ge=1, description="ensemble members; disagreement between them is the uncertainty")
    hidden_size: int = Field(64, ge=1, description="units of the GRU")
    head_size: int = Field(128, ge=1, description="width of the residual stream between the GRU and what it predicts")
    num_blocks: int = Field(2, ge=0, description="residual blocks on that stream; 0: one layer, as in the report")
    num_modes: int = Field(2, ge=1, description="alternatives predicted for a step, of which one is drawn")
    bound_latents: bool = Field(True, description="keep rollouts within the range of the latents seen, and 5 % more")
    action_lookahead: int = Field(
        8,
        ge=0,
        description="future recorded actions that a prediction reads; 0: none. Actions of a policy and altered "
        "actions are masked.",
    )
    decorrelate: bool = Field(True, description="model principal directions at unit variance instead of dimensions")
    layer_norm: bool = Field(True, description="layer normalisation in every block")
    clamp_quantile: float = Field(
        0.0,
        ge=0,
        le=1,
        description="bound each dimension's step at this quantile of its real |Δz|; 0: off",
    )
    find_events: bool = Field(
        True,
        description="hold dimensions that never change; predict directions that jump between levels as classes",
    )
    noise: Literal["none", "heteroscedastic", "bootstrap"] = Field(
        "bootstrap",
        description="noise of a rollout: none, a learned variance, or resampled one-step errors of dev episodes where "
        "no action is read ahead",
    )
    weights: LossWeights = Field(LossWeights(), description="weights of the four losses")
    recon: ReconWeights = Field(ReconWeights(), description="weights of the parts of L_recon")
    loss: Literal["mse", "smooth_l1"] = Field("smooth_l1", description="error measure of the reconstruction")
    one_step_window: int = Field(10, ge=1, description="length of the teacher-forced windows")
    input_noise: float = Field(
        0.05,
        ge=0,
        description="noise on the input latents of teacher-forced steps, in σ within an episode",
    )
    teacher_forcing: TeacherForcingConfig = Field(TeacherForcingConfig(), description="schedule of the rollout")
    gp_correction: GPCorrectionConfig = Field(GPCorrectionConfig(), description="processes beside the networks")
    horizon: HorizonConfig = Field(HorizonConfig(), description="length of the rollout in training")
    discriminator_from: float = Field(
        0.5, ge=0, le=1, description="share of training after which the discriminator takes part"
    )
    num_steps: int = Field(1500, ge=1, description="optimiser steps")
    batch_size: int = Field(
        64, ge=1, description="windows a member in each step, over all workers, and a quarter as many rollouts"
    )
    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate of AdamW (warm-up, then cosine decay)")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="decay of the moving average of the weights; 0: none")
    changes: tuple[Change, ...] = Field(
        (), description="settings that change during training, in order; population-based training writes them"
    )

    @property
    def rollout_batch_size(self) -> int:
        """Rollouts a member in each step, over all workers."""
        return max(1, self.batch_size // 4)

    @model_validator(mode="after")
    def _changes_in_order(self) -> Self:
        self.stages()
        return self

    def stages(self) -> list[tuple[float, Self]]:
        """The share of training at which each set of settings begins, the first at 0, each without changes.

        Raises:
            ValueError: where changes are out of order, or a value is none of its setting's.
        """
        tree = self.model_dump(mode="json", exclude={"changes"})
        found = [(0.0, self.model_copy(update={"changes": ()}))]
        for change in self.changes:
            if change.at <= found[-1][0]:
                raise ValueError(f"the change at {change.at} must come after {found[-1][0]}")
            for name, value in change.set.items():
                *groups, leaf = name.split(".")
                group = functools.reduce(dict.__getitem__, groups, tree)
                group[leaf] = value
            found.append((change.at, type(self).model_validate(tree)))
        return found


class GPConfig(Section):
    """Gaussian processes of one step: discrete outcome, next latent and reward. They need few transitions."""

    max_transitions: int = Field(700, ge=50, description="most transitions that a prediction is conditioned on")
    num_hyperparameter_points: int = Field(250, ge=20, description="transitions that hyperparameters are fitted to")
    steps: int = Field(60, ge=1, description="steps of Adam that fit the hyperparameters")
    num_directions: int = Field(3, ge=0, description="latent directions that explain frequent rewards; 0: none")


class PluginConfig(Section):
    """A generator of your own."""

    model: str = Field(description="module:Class, see phaseb.dynamics.custom.OneStepDynamics")
    settings: dict[str, Any] = Field({}, description="settings that the class is called with")

    @field_validator("model")
    @classmethod
    def _importable(cls, name: str) -> str:
        if not is_plugin(name):
            raise ValueError("is not of the form module:Class")
        return name


class DynamicsConfig(Section):
    """The generators. A run fits those that its arms and judges name."""

    gru: GRUConfig = Field(GRUConfig(), description="the ensemble of recurrent networks, made for whole episodes")
    gp: GPConfig = Field(GPConfig(), description="the Gaussian processes, made for a few steps from few data")
    plugins: dict[str, PluginConfig] = Field({}, description="generators of your own, by the name that arms use")

    @field_validator("plugins")
    @classmethod
    def _named(cls, plugins: dict[str, PluginConfig]) -> dict[str, PluginConfig]:
        for name in plugins:
            if name in BUILT_IN or not name.isidentifier():
                raise ValueError(
                    f"{name!r} is no name for a plug-in: use letters, digits and _, and none of {', '.join(BUILT_IN)}"
                )
        return plugins

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all generators that can be fitted."""
        return (*BUILT_IN, *self.plugins)


class SynthesisConfig(Section):
    """Rollouts of a generator from real starts: half of them under recorded actions, half with noise on these."""

    num_episodes: int = Field(200, ge=1, description="synthetic episodes to make")
    horizon: int = Field(60, ge=1, description="steps of each; recorded episodes must be that long")


class NegativesConfig(Section):
    """Rollouts of another model, as negatives for the gate.

    The model is trained by the founding report's recipe: ten teacher-forced steps, mean squared error, no clamp. Its
    early checkpoints make rollouts too.
    """

    num_steps: int = Field(600, ge=1, description="optimiser steps of the report's model")
    num_episodes: int = Field(240, ge=2, description="rollouts in all, spread over the snapshots")
