"""The cell, which refuses to work while BROKEN lies there: foreign code that fails for a while."""

import getpass
import tempfile
from pathlib import Path

from phaseb.config.data import EnvironmentConfig
from phaseb.workcell import make

BROKEN = Path(tempfile.gettempdir()) / f"phaseb-{getpass.getuser()}-broken"  # workers know nothing else of a test


class Cell:
    """Called with (config, num_envs), as `environment.id=moody_cell:Cell` is."""

    def __new__(cls, config: EnvironmentConfig, num_envs: int):
        if BROKEN.exists():
            raise RuntimeError("the drive is hot")
        return make(config.model_copy(update={"id": "workcell"}), num_envs)
