import shutil
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture
def format_1(tmp_path):
    """A copy of a run directory of format 1."""
    return Path(shutil.copytree(FIXTURES / "run-format-1", tmp_path / "old"))
