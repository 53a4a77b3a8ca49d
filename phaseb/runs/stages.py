"""The stages in order."""

from phaseb.runs import bricks, collect, encode, evaluate, judge, policy, synthesize, trust, world_model
from phaseb.runs.stage import Stage

STAGES: tuple[Stage, ...] = (
    collect.STAGE, encode.STAGE, bricks.STAGE, world_model.STAGE, synthesize.STAGE, trust.STAGE, judge.STAGE,
    policy.STAGE, evaluate.STAGE,
)  # fmt: skip
