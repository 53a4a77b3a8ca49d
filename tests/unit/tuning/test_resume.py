"""A study that is not there is not gone on with."""

import pytest

from phaseb.errors import ConfigError
from phaseb.runtime.storage import Store
from phaseb.tuning.resume import open_study
from phaseb.tuning.validation import load_study


def test_a_resume_needs_something_to_go_on_with(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "job: dynamics\nmetrics: [{name: rmse_end}]\nspace: {dynamics.gru.hidden_size: {integer: [8, 16]}}\n"
    )
    checked, store = load_study(path), Store.at(str(tmp_path / "studies" / "mine"))
    with pytest.raises(ConfigError) as refused:
        open_study(checked, store, resume=True)
    assert f"there is no study mine in {store.root} to go on with; start it without --resume" in str(refused.value)
    assert not store.exists()
    open_study(checked, store, resume=False)
    open_study(checked, store, resume=True)
