"""A run that is up to date needs neither torch nor Ray; whatever changed sends it to the stages."""

import json
import subprocess
import sys

import pytest

from phaseb.config.load import load_config
from phaseb.pipeline import fingerprint
from phaseb.pipeline.run_directory import RunDirectory
from phaseb.stages import run

RESULTS = {"verdict": "no harm", "numbers": {"std_ratio": 1.0, "judge_auc": None}}


def config_of(folder, *words):
    return load_config(None, [f"run.dir={folder}", *words])


@pytest.fixture
def told(tmp_path):
    """A run directory as the end of a run leaves it."""
    config = config_of(tmp_path)
    directory = RunDirectory.open(config)
    for name in run.STAGE_NAMES:
        entry = {"state": "done", "key": name, "metrics": {"episodes": 3}, "seconds": 2.0, "outputs": {}}
        directory.record(name, entry)
    directory.store.write_json(RESULTS, "results.json")
    directory.store.write_text("<html>", "report", "index.html")
    fingerprint.save_fingerprint(config)
    return tmp_path


class Ear:
    def __init__(self):
        self.skipped = []

    def on_stage_start(self, stage): ...

    def on_progress(self, stage, metrics): ...

    def on_stage_end(self, stage, metrics, seconds, skipped):
        self.skipped.append((stage, seconds, skipped))


def test_a_run_without_change_is_told_again(told):
    ear = Ear()
    result = run.run(config_of(told), [ear])
    assert result.metrics == RESULTS
    assert ear.skipped == [(name, 2.0, True) for name in run.STAGE_NAMES] + [("report", 0.0, True)]


def test_how_a_run_is_carried_out_is_no_change(told):
    assert fingerprint.cached_results(config_of(told, "resources.num_workers=3", "training.log_every=7")) == RESULTS


@pytest.mark.parametrize("word", ["policy.num_steps=77", "run.seed=5", "report.title=Other", "episodes.num_train=51"])
def test_another_config_is_a_change(told, word):
    assert fingerprint.cached_results(config_of(told, word)) is None


@pytest.mark.parametrize("name", ["results.json", "report/index.html", "run.json", "fingerprint.json"])
@pytest.mark.parametrize("how", ["gone", "altered", "damaged"])
def test_files_that_are_not_what_they_were_are_a_change(told, name, how):
    path = told / name
    if how == "gone":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        text = path.read_text()
        path.write_text(json.dumps({**json.loads(text), "key": "", "stages": {}}) if name.endswith("n") else text + " ")
    assert fingerprint.cached_results(config_of(told)) is None


def test_asking_imports_neither_torch_nor_ray():
    code = "import sys, phaseb.stages.run; print({'torch', 'ray', 'sklearn', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
