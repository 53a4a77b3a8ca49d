"""What is committed: no secrets, no paths of one machine, no leftovers, nothing large, links that lead somewhere."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_BYTES = 2_000_000
MAX_LINES, MAX_FUNCTION_LINES = 350, 60
MACHINE = re.compile(r"/(?:home|Users|root|work)/(?!phaseb/)[a-z][\w.-]*/|[A-Z]:\\\\Users")
LEFTOVER = re.compile(r"<<<<<<< |>>>>>>> |breakpoint\(\)|import pdb|os\.environ\.get\(\"[A-Z]_[A-Z]+\"\)")


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def texts() -> list[tuple[Path, str]]:
    found = []
    for path in tracked():
        try:
            found.append((path, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def test_nothing_names_a_path_of_one_machine_or_was_left_over():
    mine = Path(__file__)
    wrong = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path, text in texts()
        if path != mine
        for pattern in (MACHINE, LEFTOVER)
        if (found := pattern.search(text))
    ]
    assert wrong == []


def test_nothing_is_large_or_compiled():
    wrong = [path for path in tracked() if path.stat().st_size > MAX_BYTES or path.suffix in (".pyc", ".so", ".whl")]
    assert wrong == []


def test_there_are_no_secrets():
    detect = pytest.importorskip("detect_secrets")
    from detect_secrets.settings import default_settings

    secrets = detect.SecretsCollection()
    with default_settings():
        for path, _ in texts():
            if "tests" not in path.relative_to(ROOT).parts:  # made-up tokens, there to be refused
                secrets.scan_file(str(path))
    assert {name: [s.type for s in found] for name, found in secrets.data.items()} == {}


def test_files_and_functions_stay_short():
    long = []
    for path in sorted((ROOT / "phaseb").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > MAX_LINES:
            long.append(str(path.relative_to(ROOT)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES:
                long.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert long == []


def test_links_between_documents_lead_somewhere():
    broken = []
    for path, text in texts():
        if path.suffix == ".md":
            for target in re.findall(r"\]\(([^)#\s]+)", text):
                if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
                    broken.append(f"{path.relative_to(ROOT)} -> {target}")
    assert broken == []
