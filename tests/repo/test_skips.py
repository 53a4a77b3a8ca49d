"""In CI no test is skipped that an installation would let run; every run lists what was skipped, and why."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

def test_library():
    pytest.importorskip("no_such_library")

@pytest.mark.skipif(True, reason="no Chromium: install the chromium package")
def test_browser(): ...

@pytest.mark.skipif(True, reason="needs a GPU")
def test_gpu(): ...
"""


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_what_can_be_installed_may_not_be_missing_in_ci(tmp_path, ci, code):
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text('import pytest\npytest.importorskip("no_such_library")\n')
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
    command += ["--rootdir", str(tmp_path), "--continue-on-collection-errors", str(tmp_path)]
    told = subprocess.run(command, env=os.environ | {"CI": ci}, capture_output=True, text=True, check=False).stdout
    failures = [line for line in told.splitlines() if line.startswith(("FAILED", "ERROR "))]
    skips = "\n".join(line for line in told.splitlines() if line.startswith("SKIPPED"))
    assert "needs a GPU" in skips, told
    for reason in ("no Chromium", "could not import 'no_such_library'"):
        assert (reason in skips) == (not ci), told
    assert len(failures) == 3 * code, told
