"""The built-in gantry cell: physics, economics, camera, operators. The rest of phaseb knows it by these names only."""

from phaseb.config.data import EnvironmentConfig
from phaseb.workcell.batch import BatchedCell
from phaseb.workcell.cell import GantryCell, register

__all__ = ["BatchedCell", "GantryCell", "make", "register"]


def make(config: EnvironmentConfig, num_envs: int) -> BatchedCell:
    """`num_envs` gantry cells side by side, as the configuration says."""
    return BatchedCell(num_envs, config.observation, config.max_steps)


register()
