"""The stages in order."""

from phaseb.runs import bricks, collect, encode, judge, synthesize, world_model
from phaseb.runs.stage import Stage

STAGES: tuple[Stage, ...] = (
    collect.STAGE, encode.STAGE, bricks.STAGE, world_model.STAGE, synthesize.STAGE, judge.STAGE,
)  # fmt: skip
