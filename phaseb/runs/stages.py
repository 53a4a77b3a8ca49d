"""The stages in order."""

from phaseb.runs import bricks, collect, encode
from phaseb.runs.stage import Stage

STAGES: tuple[Stage, ...] = (collect.STAGE, encode.STAGE, bricks.STAGE)
