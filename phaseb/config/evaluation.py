"""Settings of what judges a policy: how many episodes of physics, or how off-policy evaluation is done without."""

from pydantic import Field

from phaseb.config.section import Section


class FqeConfig(Section):
    """Fitted Q evaluation: what a policy would earn, told from recorded episodes alone."""

    num_members: int = Field(10, ge=2, description="value functions, each fitted on its own bootstrap of the episodes")
    num_trees: int = Field(8, ge=1, description="randomised trees of each")
    min_leaf: int = Field(2, ge=1, description="fewest recorded steps whose mean a leaf is")
    discount: float = Field(0.97, gt=0, lt=1, description="discount a step")


class EvaluationConfig(Section):
    """How policies are measured."""

    num_episodes: int = Field(200, ge=1, description="evaluation episodes a policy, each with its own seed")
    first_seed: int = Field(1_000_000, ge=0, description="seed of the first: far from those of recorded episodes")
    num_envs: int = Field(100, ge=1, description="episodes stepped side by side")
    step_limit_s: float = Field(300.0, gt=0, description="seconds that an environment may take for a step of them all")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the intervals over seeds")
    fqe: FqeConfig = Field(default_factory=FqeConfig)
