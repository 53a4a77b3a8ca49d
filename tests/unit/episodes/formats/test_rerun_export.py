"""An export for Rerun without its library; tests/fixtures/check_rerun_export.py reads one with it."""

import dataclasses
import sys

import numpy as np
import pytest
from episode_strategies import make_episode

from phaseb.episodes.formats.export import Exported
from phaseb.episodes.formats.rerun_export import cut_step, write_rerun
from phaseb.errors import ConfigError
from phaseb.runtime.storage import Store


@pytest.mark.parametrize(
    ("weight", "step"),
    [(None, 5), ([1, 1, 1, 1, 1], 5), ([1, 0, 0.5, 0, 0], 3), ([0, 0, 0, 0, 0], 0)],
)
def test_a_rollout_is_cut_where_nothing_behind_has_weight(weight, step):
    episode = dataclasses.replace(make_episode("e", 5), source="synthetic")
    assert cut_step(Exported(episode, weight=None if weight is None else np.array(weight, np.float32))) == step


def test_without_the_package_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ConfigError, match=r'pip install "phaseb\[rerun\]"'):
        write_rerun(Store.at(tmp_path), iter([Exported(make_episode("e", 5))]))
    assert not Store.at(tmp_path).names()
