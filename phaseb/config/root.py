"""The whole configuration: one section a concern. All defaults live in the sections."""

from typing import Self

from pydantic import Field, model_validator

from phaseb.config.data import EnvironmentConfig, EpisodesConfig, MemoryConfig, ValuationConfig
from phaseb.config.dynamics import DynamicsConfig, NegativesConfig, SynthesisConfig
from phaseb.config.encoder import BricksConfig, LatentsConfig
from phaseb.config.evaluation import EvaluationConfig, PromotionConfig, WorthConfig
from phaseb.config.flywheel import FlywheelConfig
from phaseb.config.policy import ArmsConfig, PolicyConfig, ReplayConfig
from phaseb.config.run import ReportConfig, ResourcesConfig, ReuseConfig, RunConfig, TrainingConfig
from phaseb.config.section import Section
from phaseb.config.trust import JudgeConfig, TrustConfig


class Config(Section):
    """Everything that a run depends on."""

    run: RunConfig = Field(default_factory=RunConfig)
    environment: EnvironmentConfig = Field(default_factory=EnvironmentConfig)
    episodes: EpisodesConfig = Field(default_factory=EpisodesConfig)
    valuation: ValuationConfig = Field(default_factory=ValuationConfig)
    memory: MemoryConfig = Field(default_factory=MemoryConfig)
    latents: LatentsConfig = Field(default_factory=LatentsConfig)
    bricks: BricksConfig = Field(default_factory=BricksConfig)
    dynamics: DynamicsConfig = Field(default_factory=DynamicsConfig)
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig)
    negatives: NegativesConfig = Field(default_factory=NegativesConfig)
    trust: TrustConfig = Field(default_factory=TrustConfig)
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    replay: ReplayConfig = Field(default_factory=ReplayConfig)
    arms: ArmsConfig = Field(default_factory=ArmsConfig)
    policy: PolicyConfig = Field(default_factory=PolicyConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    promotion: PromotionConfig = Field(default_factory=PromotionConfig)
    worth: WorthConfig = Field(default_factory=WorthConfig)
    reuse: ReuseConfig = Field(default_factory=ReuseConfig)
    flywheel: FlywheelConfig = Field(default_factory=FlywheelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig)
    report: ReportConfig = Field(default_factory=ReportConfig)

    @property
    def stored_generators(self) -> tuple[str, ...]:
        """Generators whose rollouts are made once, from real starts and for `synthesis.horizon` steps."""
        return (self.synthesis.generator,)

    @property
    def branched_generators(self) -> tuple[str, ...]:
        """Generators in which policies branch while they learn."""
        wanted = self.policy.augmentation.enabled and "trust_weighted" in self.arms.names
        return (self.policy.augmentation.generator,) if wanted else ()

    @property
    def generators(self) -> tuple[str, ...]:
        """Generators that the run fits: those that arms use, then those that only the judges ask for."""
        used = (*self.stored_generators, *self.branched_generators, *self.judged_generators)
        return tuple(dict.fromkeys(used))

    @property
    def judged_generators(self) -> tuple[str, ...]:
        """Generators that are judged: `judge.generators`, or all that arms use where it is empty."""
        used = (*self.stored_generators, *self.branched_generators)
        return tuple(dict.fromkeys(self.judge.generators or used))

    def generator_of(self, arm: str) -> str | None:
        """The generator that an arm learns from; None where it learns from recorded data alone."""
        if arm == "trust_weighted" and self.policy.augmentation.enabled:
            return self.policy.augmentation.generator
        return self.synthesis.generator if arm in ("fixed_weight", "bounds_filter", "trust_weighted") else None

    @model_validator(mode="after")
    def _generators_are_known(self) -> Self:
        for name in self.generators:
            if name not in self.dynamics.names:
                raise ValueError(f"no generator is called {name!r}; there are {', '.join(self.dynamics.names)} "
                                 f"(define your own as dynamics.plugins.{name})")  # fmt: skip
        return self
