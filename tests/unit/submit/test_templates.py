"""`phaseb init` gives what the repository has, and overwrites nothing."""

import os
from pathlib import Path

import pytest

from phaseb.errors import ConfigError
from phaseb.submit.templates import FOLDERS, template_folder, write_templates

ROOT = Path(__file__).parents[3]


def test_init_copies_every_file_once_and_again_changes_nothing(tmp_path, capsys):
    assert write_templates(str(tmp_path / "new")) == 0
    for name in FOLDERS:
        theirs = {p.relative_to(ROOT / name) for p in (ROOT / name).rglob("*") if p.is_file()}
        mine = {p.relative_to(tmp_path / "new" / name) for p in (tmp_path / "new" / name).rglob("*") if p.is_file()}
        assert mine == theirs
    assert os.access(tmp_path / "new/cluster/local/start-head.sh", os.X_OK)
    assert "configs" in capsys.readouterr().out
    assert write_templates(str(tmp_path / "new")) == 0


def test_init_never_overwrites(tmp_path):
    target = tmp_path / "configs"
    target.mkdir()
    (target / "dev.yaml").write_text("mine: 1\n")
    with pytest.raises(ConfigError, match=r"configs/dev.yaml exists and differs"):
        write_templates(str(tmp_path))
    assert (target / "dev.yaml").read_text() == "mine: 1\n"
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_init_into_a_file_is_refused(tmp_path, place):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ConfigError, match=r"taken is a file; give a folder"):
        write_templates(str(tmp_path / place))


def test_side_folders_hold_no_python():
    assert [p for name in FOLDERS for p in template_folder(name).rglob("*.py")] == []
