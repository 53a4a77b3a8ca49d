"""The sentence that a search ends with."""

import dataclasses

from phaseb.tuning.result import StudyResult

FOUND = StudyResult("valley", "height", {"policy.width": 64}, 1.0, 1.25, 3.5, None, {}, 1.0, "best.yaml")


def test_the_verdict_is_about_fresh_seeds():
    told = "A better point was found: height 1.25 on fresh seeds, the base config's own values have 3.5."
    assert FOUND.verdict.startswith(told)


def test_the_verdict_says_where_nothing_was_confirmed_or_better():
    unconfirmed = dataclasses.replace(FOUND, confirmed=None, base=None)
    assert "height 1 in the search, not run again on fresh seeds. best.yaml" in unconfirmed.verdict
    nothing = dataclasses.replace(FOUND, best={}, confirmed=3.5)
    assert nothing.verdict == "Nothing beat the base config's own values (height 3.5)."
