"""What the page says of the worth of data."""

from html import unescape

import numpy as np
import pytest
from pydantic import ValidationError

from phaseb.config.evaluation import WorthConfig
from phaseb.report.attribution import worth_section
from phaseb.stages.learning_curve import worth_of

ROW = {"brick": "b0", "episodes": 4, "operators": {}, "economics": {}, "estimate": 1.0}
TOLD = {"arm": "trust_weighted", "bricks": [ROW], "rank_correlation": None, "next": {"brick": "b0", "operators": {}}}
REAL = np.array([[10.0, 12.0, 8.0], [30.0, 28.0, 32.0], [50.0, 52.0, 48.0]])


def page(**change):
    return unescape(worth_section({**TOLD, **change}))


def test_episodes_worth_is_told_where_it_was_asked():
    curve = worth_of([5, 10, 20], REAL, np.array([30.0, 28.0, 32.0]), "$/h", 0)
    assert (curve["value"], curve["beyond"]) == (pytest.approx(2.0), False)
    assert [p["mean"] for p in curve["control"]] == [10, 30, 50]
    curve |= {"control_arm": "real_only", "candidate_arm": "trust_weighted"}
    said = page(episodes_worth=curve)
    assert f"Synthetic data is worth {curve['told']} times its real episodes at 5." in said
    assert said.count("<table>") == 2
    for nothing in ({}, {"episodes_worth": None}):
        assert page(**nothing).count("<table>") == 1


def test_beyond_all_there_are_is_said_so():
    curve = worth_of([5, 10, 20], REAL, np.full(3, 70.0), "$/h", 0)
    curve |= {"control_arm": "real_only", "candidate_arm": "trust_weighted"}
    assert "worth > 4 times its real episodes at 5: more than 20 would be needed, all there are." in page(
        episodes_worth=curve
    )


@pytest.mark.parametrize("shares", [[0.5], [0.5, 0.25, 1], [0.25, 0.5], [0, 1]])
def test_a_curve_ascends_to_all_episodes(shares):
    with pytest.raises(ValidationError, match="two or more shares"):
        WorthConfig(curve=shares)
