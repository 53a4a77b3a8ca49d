"""The whole configuration: one section a concern. All defaults live in the sections."""

from typing import Self

from pydantic import Field, model_validator

from phaseb.config.arms import CHOSEN, ArmsConfig
from phaseb.config.data import EnvironmentConfig, EpisodesConfig, MemoryConfig, ValuationConfig
from phaseb.config.dynamics import DynamicsConfig, NegativesConfig, SynthesisConfig
from phaseb.config.encoder import BricksConfig, LatentsConfig
from phaseb.config.evaluation import ClosedLoopConfig, EvaluationConfig, PromotionConfig, WorthConfig
from phaseb.config.flywheel import FlywheelConfig
from phaseb.config.policy import PolicyConfig, ReplayConfig
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
    closed_loop: ClosedLoopConfig = Field(default_factory=ClosedLoopConfig)
    promotion: PromotionConfig = Field(default_factory=PromotionConfig)
    worth: WorthConfig = Field(default_factory=WorthConfig)
    reuse: ReuseConfig = Field(default_factory=ReuseConfig)
    flywheel: FlywheelConfig = Field(default_factory=FlywheelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig)
    report: ReportConfig = Field(default_factory=ReportConfig)

    @property
    def stored_generators(self) -> tuple[str, ...]:
        """Generators whose rollouts are made once: those that arms draw, else the GRU, which the judges look at."""
        return self.drawn_generators or ("gru",)

    @property
    def drawn_generators(self) -> tuple[str, ...]:
        """Generators whose stored rollouts some arm draws."""
        return self._generators("stored")

    @property
    def branched_generators(self) -> tuple[str, ...]:
        """Generators in which policies branch while they learn, or may."""
        named = (name for name in self._generators("branched") if name != CHOSEN)
        return tuple(dict.fromkeys((*named, *self.candidates)))

    @property
    def candidates(self) -> tuple[str, ...]:
        """Generators of which the evidence chooses one: all that there are, where an arm asks for the chosen one."""
        return self.dynamics.names if CHOSEN in self._generators("branched") else ()

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
        known = {one.name: one for one in self.arms.trained}.get(arm)
        return known.config.generator if known is not None and known.is_synthetic else None

    def _generators(self, rollouts: str) -> tuple[str, ...]:
        used = (arm.config for arm in self.arms.trained if arm.is_synthetic)
        return tuple(dict.fromkeys(c.generator for c in used if c.rollouts == rollouts and c.generator))

    @model_validator(mode="after")
    def _learners_are_known(self) -> Self:
        for arm in self.arms.trained:
            name, known = arm.config.learner, self.policy.learners.defined
            if name not in known:
                raise ValueError(
                    f"arms.{arm.name}.learner: no learner is called {name!r}; there are "
                    f"{', '.join(known)} (define your own as policy.learners.{name})"
                )
            if arm.state_noise and self.policy.of_learner(name).learns_values:
                raise ValueError(
                    f"arms.{arm.name}: state noise is a control of learners that clone, and {name} learns values; "
                    "take bc, act or flow"
                )
        return self

    @model_validator(mode="after")
    def _the_decision_can_be_made(self) -> Self:
        known = {arm.name: arm for arm in self.arms.trained}
        candidates = [known[name] for name in self.promotion.candidates if name in known]
        most, arms = self.promotion.max_episodes, len(self.arms.real_arms) + 2 * len(candidates)
        if most is not None and candidates and most < arms:
            raise ValueError(
                f"promotion.max_episodes={most}: the decision compares {arms} arms and needs an episode "
                "of each; allow more, or name fewer arms in arms.names"
            )
        if not self.arms.real_arms:
            raise ValueError(
                "arms: no arm learns from real episodes alone, so nothing could ship where rollouts do "
                "not help; add real_only to arms.names"
            )
        for arm in candidates:
            if not arm.is_synthetic:
                raise ValueError(f"promotion.candidates: {arm.name} uses no rollouts of a generator; name arms that do")
        return self

    @model_validator(mode="after")
    def _generators_are_known(self) -> Self:
        for name in self.generators:
            if name not in self.dynamics.names:
                raise ValueError(
                    f"no generator is called {name!r}; there are {', '.join(self.dynamics.names)} "
                    f"(define your own as dynamics.plugins.{name})"
                )
        return self
