"""The documentation builds without a warning, and says what the schema and the folder say."""

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from phaseb.config.arms import DEFAULT_ARMS
from phaseb.config.load import dotted_paths
from phaseb.config.policy import DEFAULT_LEARNERS
from phaseb.config.reference import settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_is_in_the_table_of_contents(site):
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).with_suffix("").as_posix() for path in docs.rglob("*.md")} | {"config"}
    index = (site / "index.html").read_text()
    assert {name for name in pages if f'href="{name}.html"' not in index} <= {"index"}
    assert all((site / f"{name}.html").exists() for name in pages)


def test_the_reference_has_every_setting_with_its_meaning(site):
    text = unescape((site / "config.html").read_text())
    told = set(re.findall(r"<code>([a-zA-Z_0-9.]+)</code>", text))
    assert {setting.path for setting in settings()} <= told
    assert {f"arms.{name}" for name in DEFAULT_ARMS} <= told
    assert {f"policy.learners.{name}" for name in DEFAULT_LEARNERS} <= told
    for setting in settings():
        assert len(setting.description) > 5, setting.path
        assert setting.default != "", setting.path


def test_examples_are_shown_as_they_are(site):
    shown = unescape(re.sub(r"<[^>]+>", "", (site / "extending.html").read_text()))
    for name in ("csv_source.py", "linear_judge.py", "ridge_model.py"):
        for line in (ROOT / "docs" / "examples" / name).read_text().splitlines():
            assert line.strip() in shown, (name, line)


def test_commands_in_the_documents_exist():
    from phaseb.cli.main import _parser

    known = next(a for a in _parser()._actions if a.dest == "command").choices
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for word in re.findall(r"^(?: {4}|.*`)phaseb ([a-z][a-z-]*)", path.read_text(), re.MULTILINE):
            assert word in known, f"{path.name}: phaseb {word}"


def test_settings_in_the_documents_exist():
    """`section.setting=…` and backticked dotted names that begin like a section."""
    paths = set(dotted_paths())
    sections = {path.partition(".")[0] for path in paths}
    prefixes = {".".join(path.split(".")[:n]) for path in paths for n in range(1, path.count(".") + 1)}
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text()
        for name in re.findall(r"[\s`\"]([a-z_]+(?:\.[a-z_0-9]+)+)=", text) + re.findall(
            r"`([a-z_]+(?:\.[a-z_0-9]+)+)`", text
        ):
            if name.partition(".")[0] in sections - {"environment"} and not name.endswith(
                (".json", ".py", ".db", ".parquet", ".onnx", ".pt2")
            ):
                assert name in paths | prefixes, f"{path.name}: {name}"


def test_settings_in_the_benchmarks_exist():
    paths = set(dotted_paths())
    sections = {path.partition(".")[0] for path in paths}
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        for name in re.findall(r"[\"' ]([a-z_]+(?:\.[a-z_0-9]+)+)=", path.read_text()):
            if name.partition(".")[0] in sections:
                assert name in paths, f"{path.name}: {name}"


def test_benchmarks_in_the_documents_exist():
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for name in re.findall(r"benchmarks/([a-z_0-9]+\.py)", path.read_text()):
            assert (ROOT / "benchmarks" / name).exists(), f"{path.name}: {name}"
