"""The whole configuration: one section a concern. All defaults live in the sections."""

from pydantic import Field

from phaseb.config.data import EnvironmentConfig, EpisodesConfig, MemoryConfig, ValuationConfig
from phaseb.config.dynamics import GeneratorsConfig, SynthesisConfig, WorldModelConfig
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
    world_model: WorldModelConfig = Field(default_factory=WorldModelConfig)
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig)
    generators: GeneratorsConfig = Field(default_factory=GeneratorsConfig)
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
