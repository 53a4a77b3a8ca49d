"""Parsing a command line is quick because it loads nothing heavy; nothing starts Ray or opens a window on import."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "numpy", "pyarrow", "mujoco", "pygame", "sklearn", "pandas", "optuna", "gymnasium")


def loaded(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after some code."""
    program = f"import contextlib, io, sys\n{code}\nprint('|'.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(filter(None, done.stdout.strip().split("|")))


@pytest.mark.parametrize(
    "argv", [[], ["--help"], ["run", "--help"], ["tune", "--help"], ["--version"], ["run", "policy.discount=7"]]
)
def test_arguments_are_parsed_and_checked_without_anything_heavy(argv):
    code = f"""
from phaseb.cli.main import main
silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
with silent[0], silent[1], contextlib.suppress(SystemExit):
    main({argv!r})"""
    assert loaded(code) == set()


def test_the_package_itself_loads_nothing():
    assert loaded("import phaseb; phaseb.__version__") == set()


def test_every_job_can_be_imported_and_has_a_run():
    code = """
import importlib
from phaseb.config.registry import JOBS
for module, _ in JOBS.values():
    assert callable(importlib.import_module(module).run), module
import ray
assert not ray.is_initialized()"""
    assert "ray" in loaded(code)
