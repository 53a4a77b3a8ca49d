"""`~` is the home folder in every path that is a setting; what cannot be opened is refused where it is set."""

from pathlib import Path

import pytest

from phaseb.config.cluster import JobConfig
from phaseb.config.load import dotted_paths, load_config
from phaseb.config.paths import PathText, expanded
from phaseb.config.tuning import StudyConfig
from phaseb.errors import ConfigError
from phaseb.runtime.storage import Store

PATHS = {
    "run.dir": "run.dir={}",
    "episodes.path": "episodes={{source: npz, path: {}}}",
    "reuse.encoder": "reuse.encoder={}",
    "reuse.dynamics": "reuse.dynamics={}",
    "reuse.trust": "reuse.trust={}",
    "flywheel.folder": "flywheel.folder={}",
}


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", PATHS)
def test_a_tilde_is_the_home_folder(name, home):
    config = load_config(None, [PATHS[name].format("~/a/b")])
    section, leaf = name.split(".")
    assert getattr(getattr(config, section), leaf) == str(home / "a/b")


def test_so_it_is_in_parts_jobs_and_studies(home):
    config = load_config(None, ["episodes={source: mixed, parts: [{source: npz, path: ~/a.npz}]}"])
    assert config.episodes.parts[0].path == str(home / "a.npz")
    assert JobConfig(name="a", storage="~/runs").storage == str(home / "runs")
    assert StudyConfig.model_fields["config"].annotation == PathText | None


def test_every_setting_that_is_a_path_is_of_that_type():
    """A setting whose meaning says folder, file or directory: none is forgotten."""
    said = {
        name
        for name, field in dotted_paths().items()
        if field.annotation is str and any(w in field.description for w in ("directory", "folder that", "file, folder"))
    }
    assert said == set(PATHS)
    assert all(dotted_paths()[name].metadata for name in PATHS)


def test_a_config_may_lie_in_the_home_folder(home):
    (home / "mine.yaml").write_text("run: {seed: 5}\n")
    assert load_config("~/mine.yaml").run.seed == 5


def test_storage_knows_it_too_and_makes_no_folder_of_that_name(home, monkeypatch):
    monkeypatch.chdir(home)
    Store.at("~/made").write_text("x", "file")
    assert (home / "made" / "file").read_text() == "x"
    assert not Path("~").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "hf://datasets/lerobot/pusht@v2.1/data",
            "download lerobot/pusht --repo-type dataset --revision v2.1 --local-dir",
        ),
        ("hf://datasets/lerobot/pusht/data", "run `hf download lerobot/pusht --repo-type dataset --local-dir FOLDER`"),
        ("https://example.org/a.npz", "download the file first"),
        ("ftp://host/a", "download the file first"),
        ("smb://host/a", "smb:// is no storage that can be opened; give a path, or one of file://, s3://"),
        ("~nobody-of-that-name/a", "no home folder is known for ~nobody-of-that-name"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_what_to_do(text, told):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [f"run.dir={text}"])
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"command line (run.dir={text}): run.dir = {text!r}: ")
    assert told in line
    with pytest.raises(ConfigError, match=r"://|home folder"):
        Store.at(text)


@pytest.mark.parametrize("text", ["a~b", "s3://bucket/~x", "/a/~", "", "./~/a", "C:\\x"])
def test_other_paths_stay_as_they_are(text):
    assert expanded(text) == text
