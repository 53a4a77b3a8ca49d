"""The wheel holds the package and the side folders as templates, nothing else, and gives them out by itself."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[2]
FOLDERS = ("configs", "jobs", "tune", "cluster")


def build(source, target):
    """The wheel and the source distribution of a checkout."""
    command = [sys.executable, "-m", "build", "--wheel", "--sdist", "--no-isolation"]
    subprocess.run([*command, "--outdir", str(target), str(source)], check=True, capture_output=True)
    [wheel], [sdist] = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def wheel(built):
    return built[0]


def test_two_checkouts_give_the_same_bytes(tmp_path):
    """At other places, at other times, under other umasks."""
    first, second = (build(checkout(tmp_path / str(i), i), tmp_path / f"built-{i}") for i in range(2))
    for ours, theirs in zip(first, second, strict=True):
        assert ours.name == theirs.name
        assert contents(ours) == contents(theirs)
        assert ours.read_bytes() == theirs.read_bytes()


def checkout(folder, number):
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
        (folder / name).chmod((0o755, 0o700)[number] if os.access(ROOT / name, os.X_OK) else (0o644, 0o600)[number])
        os.utime(folder / name, (1e9 + number, 1e9 + number))
    return folder


def test_the_source_distribution_has_what_its_tests_need(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in tracked() if "/" not in name or name.startswith(".github/")} <= names
    for folder in ("phaseb", "tests", "docs", "configs", "jobs", "tune", "cluster", "benchmarks"):
        assert {name for name in tracked() if name.startswith(f"{folder}/")} <= names
    assert not [name for name in names if name.endswith((".pyc", ".gitkeep"))]


def tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in names.split("\0") if name and (ROOT / name).is_file()]


def contents(path):
    """The digest of every member, to say which one differs."""
    if path.suffix == ".whl":
        archive = zipfile.ZipFile(path)
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
    with tarfile.open(path) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        return {m.name: hashlib.sha256(archive.extractfile(m).read()).hexdigest() for m in files}


def test_the_wheel_is_clean(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"phaseb", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    assert not [name for name in names if name.endswith((".pyc", ".whl")) or "/tests/" in name]
    for folder in FOLDERS:
        theirs = {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob("*") if p.is_file()}
        home = "phaseb/submit/templates/"
        mine = {n.removeprefix(home) for n in names if n.startswith(f"{home}{folder}/")}
        assert mine == theirs
    code = {str(p.relative_to(ROOT)) for p in (ROOT / "phaseb").rglob("*.py")}
    assert code <= set(names)


def test_init_works_from_the_wheel_alone(wheel, tmp_path):
    """Unpacked in an empty folder, without the checkout: `phaseb init` writes every template, the script executable."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import sys; sys.path.insert(0, 'site'); import phaseb.cli.main as m; sys.exit(m.main(['init', 'project']))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = {str(p.relative_to(tmp_path / "project")) for p in (tmp_path / "project").rglob("*") if p.is_file()}
    assert written == {str(p.relative_to(ROOT)) for f in FOLDERS for p in (ROOT / f).rglob("*") if p.is_file()}
    assert (tmp_path / "project/cluster/local/start-head.sh").stat().st_mode & 0o111
