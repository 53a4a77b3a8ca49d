"""Folders that have no page are refused with one line that says what to do."""

import pytest

from phaseb.errors import ConfigError, DataError
from phaseb.runtime.storage import Store
from phaseb.stages.report import rewrite_report


def test_a_study_is_shown_by_the_dashboard(tmp_path):
    Store.at(tmp_path).write_json({"name": "valley"}, "study.json")
    with pytest.raises(ConfigError, match=rf"is a study.*optuna-dashboard sqlite:///{tmp_path}/study.db"):
        rewrite_report([str(tmp_path)])
    with pytest.raises(ConfigError, match="is a study; only runs are compared"):
        rewrite_report([str(tmp_path), str(tmp_path)])


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a run directory"):
        rewrite_report([str(tmp_path / "nowhere")])
    with pytest.raises(ConfigError, match="3 were given"):
        rewrite_report(["a", "b", "c"])
