"""The stages in order, and what is begun beside which."""

from phaseb.config.root import Config
from phaseb.pipeline.ahead import FEW_STEPS, HeadStart
from phaseb.pipeline.stage import Stage
from phaseb.stages import bricks, collect, dynamics, encode, evaluate, gate, judge, policy, synthesize

STAGES: tuple[Stage, ...] = (
    collect.STAGE, encode.STAGE, bricks.STAGE, dynamics.STAGE, synthesize.STAGE, gate.STAGE, judge.STAGE,
    policy.STAGE, evaluate.STAGE,
)  # fmt: skip

HEAD_STARTS: dict[str, tuple[HeadStart, ...]] = {
    "dynamics": (
        HeadStart("event_gps", "dynamics", dynamics.event_gp_fitter, dynamics.needs_event_gps),
        HeadStart("negatives", "trust", gate.negatives, lambda config: not config.reuse.trust),
    ),
    "trust": (HeadStart("judge", "judge", judge.judged),),
}  # fmt: skip
"""By the stage that they are made beside. Each follows from what that stage's inputs are."""


def head_starts(stage: Stage, config: Config) -> tuple[HeadStart, ...]:
    """What is begun beside a stage: nothing where its training is over before another process has come."""
    steps = {"dynamics": config.dynamics.gru.num_steps, "trust": config.trust.num_steps}
    return HEAD_STARTS.get(stage.name, ()) if steps.get(stage.name, 0) >= FEW_STEPS else ()
