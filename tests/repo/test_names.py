"""The package has the field's names: none of the rename table's old ones, and no line that escapes the formatter."""

import importlib.util
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def house():
    spec = importlib.util.spec_from_file_location("house", ROOT / "benchmarks/house.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_old_name_is_an_identifier():
    assert house().old_names() == []


def test_no_module_stands_outside_the_layers_or_in_a_cycle():
    _, names = house().measure()
    assert names["modules in no layer"] == []
    assert names["module cycles"] == []


def test_every_setting_is_used():
    assert house().unused_settings() == []


def test_no_line_escapes_the_formatter():
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    escape = re.compile(r"#\s*fmt:" + r"\s*(skip|off)")
    found = [f for f in files.stdout.split() if escape.search((ROOT / f).read_text(encoding="utf-8"))]
    assert found == []
