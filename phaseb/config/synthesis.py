"""Synthetic episodes: how many, how long, from which starts and under whose actions."""

from pydantic import Field, model_validator

from phaseb.config.section import Section


class ActionSources(Section):
    """Shares of rollouts by where their actions come from (normalised to one)."""

    recorded: float = Field(0.5, ge=0, description="the recorded actions of the start's episode")
    perturbed: float = Field(0.5, ge=0, description="recorded actions with noise added")

    @model_validator(mode="after")
    def _some(self) -> "ActionSources":
        if self.recorded + self.perturbed <= 0:
            raise ValueError("at least one action source needs a share above zero")
        return self


class SynthesisConfig(Section):
    """Rollouts of generators from real starts: of those whose stored rollouts an arm draws."""

    num_episodes: int = Field(200, ge=1, description="synthetic episodes to make")
    horizon: int = Field(60, ge=1, description="steps of each; recorded actions must reach that far")
    action_sources: ActionSources = Field(ActionSources(), description="whose actions drive the rollouts")
    perturbation: float = Field(0.2, ge=0, description="σ of the noise on perturbed actions, which live in [-1, 1]")
    perturbation_correlation: float = Field(0.7, ge=0, lt=1, description="of that noise from one step to the next")
    batch_size: int = Field(64, ge=1, description="rollouts in one task")
