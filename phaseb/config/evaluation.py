"""Settings of what judges a policy: how many episodes of physics, or how off-policy evaluation is done without."""

from pydantic import Field

from phaseb.config.section import Section


class FqeConfig(Section):
    """Fitted Q evaluation: what a policy would earn, told from recorded episodes alone."""

    num_steps: int = Field(2000, ge=1, description="learner steps")
    batch_size: int = Field(256, ge=2, description="rows of a step")
    num_members: int = Field(10, ge=2, description="value functions, each fitted on its own bootstrap of the episodes")
    width: int = Field(128, ge=8, description="units of a hidden layer")
    num_layers: int = Field(2, ge=1, description="hidden layers")
    lr: float = Field(5e-4, gt=0, description="learning rate")
    target_rate: float = Field(0.01, gt=0, le=1, description="share of the values that moves into their targets a step")
    discount: float = Field(0.97, gt=0, lt=1, description="discount a step")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW's decay: holds down values of unseen actions")


class EvaluationConfig(Section):
    """How policies are measured."""

    num_episodes: int = Field(200, ge=1, description="evaluation episodes a policy, each with its own seed")
    first_seed: int = Field(1_000_000, ge=0, description="seed of the first: far from those of recorded episodes")
    num_envs: int = Field(100, ge=1, description="episodes stepped side by side")
    step_limit_s: float = Field(300.0, gt=0, description="seconds that an environment may take for a step of them all")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals over seeds")
    fqe: FqeConfig = Field(default_factory=FqeConfig)
