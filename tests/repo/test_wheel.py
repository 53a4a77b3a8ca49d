"""The wheel holds the package and the side folders as templates, nothing else, and gives them out by itself."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("configs", "jobs", "tune", "cluster")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return path


def test_the_wheel_is_clean(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"phaseb", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    assert not [name for name in names if name.endswith((".pyc", ".whl")) or "/tests/" in name]
    for folder in FOLDERS:
        theirs = {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob("*") if p.is_file()}
        mine = {n.removeprefix("phaseb/templates/") for n in names if n.startswith(f"phaseb/templates/{folder}/")}
        assert mine == theirs
    code = {str(p.relative_to(ROOT)) for p in (ROOT / "phaseb").rglob("*.py")}
    assert code <= set(names)


def test_init_works_from_the_wheel_alone(wheel, tmp_path):
    """Unpacked in an empty folder, without the checkout: `phaseb init` writes every template, the script executable."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import sys; sys.path.insert(0, 'site'); from phaseb.cli import main; sys.exit(main(['init', 'project']))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = {str(p.relative_to(tmp_path / "project")) for p in (tmp_path / "project").rglob("*") if p.is_file()}
    assert written == {str(p.relative_to(ROOT)) for f in FOLDERS for p in (ROOT / f).rglob("*") if p.is_file()}
    assert (tmp_path / "project/cluster/local/start-head.sh").stat().st_mode & 0o111
