"""Trials on a robot: the error that is promised, the gain that is planned for, and tables as people fill them in."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from phaseb.cli.main import main
from phaseb.errors import ConfigError, DataError
from phaseb.pipeline.run_directory import read_decision
from phaseb.promotion.label_shuffles import LabelShuffles
from phaseb.robot_trials.plan import plan, schedule, successes
from phaseb.robot_trials.study import Study, analyse, decision
from phaseb.robot_trials.table import read_trials
from phaseb.runtime.storage import Store

LABELS = {"K11": "candidate", "R22": "control"}


def study(num_trials: int = 40, **terms: object) -> Study:
    return Study("act_synthetic", "act", LABELS, num_trials, **terms)


def share_of_wins(terms: Study, gain: float, num_studies: int, seed: int, baseline: float = 0.6) -> float:
    rng, draw = np.random.default_rng(seed), successes(baseline, gain)
    return np.mean([analyse(terms, *draw(rng, terms.num_trials))[-1].verdict == "better" for _ in range(num_studies)])


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("num_trials", [12, 40])
def test_equals_are_called_better_no_more_often_than_promised(paired: bool, num_trials: int) -> None:
    # 300 studies of a test whose error is at most 5 %: more than 26 false ones would come by chance once in 1,000.
    assert share_of_wins(study(num_trials, paired=paired), 0.0, 300, seed=1) * 300 <= 26


@pytest.mark.parametrize("paired", [True, False])
def test_the_planned_trials_find_the_planned_gain(paired: bool) -> None:
    terms = plan(study(paired=paired, gain=0.35), baseline=0.5, power=0.8)
    assert 19 <= terms.num_trials <= 34  # a fixed test needs 19 by the normal formula
    assert share_of_wins(terms, 0.35, 200, seed=5, baseline=0.5) >= 0.72  # 80 % less three standard errors


def test_scores_are_planned_too_and_what_cannot_be_found_is_refused() -> None:
    assert 10 <= plan(study(gain=1.0, outcome="score", paired=False), 0.5, 0.8, score_std=1.0).num_trials <= 20
    with pytest.raises(ConfigError, match="more than 2000 trials"):
        plan(study(gain=0.005), 0.5, 0.8)
    with pytest.raises(ConfigError, match="their sum at most 1"):
        plan(study(gain=0.6), 0.5, 0.8)


def test_shuffled_labels_agree_with_the_exact_permutation_test_at_one_look() -> None:
    candidate, control = np.array([1.0, 1, 1, 1, 1, 1, 1, 0]), np.array([0.0, 0, 1, 0, 0, 0, 1, 0])
    exact = stats.hypergeom(16, 9, 8).sf(6)  # P(7 or more of the 9 successes fall on the candidate's 8 trials)
    assert exact == pytest.approx(0.0203, abs=1e-4)
    difference = candidate.mean() - control.mean()
    assert difference > LabelShuffles(8, 0.03).critical(candidate, control)
    assert difference <= LabelShuffles(8, 0.01).critical(candidate, control)


def test_asking_more_often_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    candidate, control = successes(0.4, 0.4)(rng, 40)
    whole = analyse(study(), candidate, control)
    for there in range(1, 41):
        looks = analyse(study(), candidate[:there], control[:there])
        assert looks == whole[: len(looks)]


def test_what_is_decided_is_one_sentence() -> None:
    rows = np.r_[np.ones(36), np.zeros(4)], np.r_[np.zeros(30), np.ones(10)]
    won = decision(study(), analyse(study(), *rows), 40)
    assert (won["decided"], won["promoted"], won["shipped"]) == (True, True, "act_synthetic")
    assert won["reason"].startswith("act_synthetic is shipped: act_synthetic +100 points (")
    lost = decision(study(), analyse(study(), *rows[::-1]), 40)
    assert (lost["promoted"], lost["shipped"]) == (False, "act")
    early = decision(study(), analyse(study(), rows[0][:5], rows[1][:5]), 5)
    assert (early["decided"], early["shipped"]) == (False, "")
    assert early["reason"] == "go on: the next look is after 8 more pairs"
    alike = decision(study(), analyse(study(), rows[0], rows[0]), 40)
    assert alike["reason"].startswith("act is shipped, no difference was shown: ")


def test_the_schedule_is_blind_balanced_and_shuffled() -> None:
    text = schedule(study(), seed=0)
    assert "act" not in text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["seq"]) for row in rows] == list(range(1, 81))
    first = [row["arm"] for row in rows[::2]]
    assert first.count("K11") == first.count("R22") == 20
    assert first != sorted(first)
    assert all(
        {one["arm"], other["arm"]} == set(LABELS) and one["pair"] == other["pair"]
        for one, other in zip(rows[::2], rows[1::2], strict=True)
    )


def filled(changes: dict[int, dict[str, str]], num_trials: int = 12) -> str:
    """The schedule with the candidate always successful and the control never, and some rows changed."""
    rows = list(csv.DictReader(io.StringIO(schedule(study(num_trials), seed=0))))
    for i, row in enumerate(rows):
        row |= {"success": str(int(row["arm"] == "K11")), "operator": "ann", "reset": "template"}
        row |= changes.get(i, {})
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def test_incomplete_pairs_and_invalid_trials_are_left_out_and_counted() -> None:
    changes = {0: {"success": ""}, 2: {"status": "invalid", "invalid_reason": "gripper jammed"}, 5: {"operator": "bob"}}
    trials = read_trials(filled(changes), study(12), "t.csv")
    assert (len(trials.candidate), trials.candidate.sum(), trials.control.sum()) == (10, 10, 0)
    assert trials.notes == (
        "1 invalid trials",
        "1 trials have no success yet",
        "2 pairs are not complete and are left out",
        "operator differs within 1 pairs, first in pair 3",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"success": "maybe"}, "t.csv: line 5: success 'maybe' is neither 1 nor 0"),
        ({"arm": "act"}, "line 5: arm 'act' is none of K11, R22"),
        ({"seq": "1"}, "seq 1 is there 2 times"),
        ({"seq": "x"}, "line 5: seq 'x' is no whole number"),
        ({"pair": "1"}, "pair 1 has 2 trials of"),
        ({"pair": ""}, "line 5: a paired study needs a pair"),
        ({"status": "invalid"}, "line 5: an invalid trial needs an invalid_reason"),
    ],
)
def test_a_wrong_line_is_named(change: dict[str, str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_trials(filled({3: change}), study(12), "t.csv")


def test_an_order_that_favours_one_policy_is_named() -> None:
    rows = [f"{2 * i + s},{i},{label},{s}\n" for i in range(10) for s, label in enumerate(("K11", "R22"))]
    trials = read_trials("seq,pair,arm,success\n" + "".join(rows), study(10), "t.csv")
    assert "the candidate went first in 100% of the pairs: wear may favour one side" in trials.notes
    assert "no operator is recorded" in trials.notes


def test_the_commands_plan_decide_and_ship(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, run = str(tmp_path / "t.csv"), tmp_path / "run"
    words = ["--gain", "0.4", "--baseline", "0.5", "--candidate", "trust_weighted", "--control", "real_only"]
    assert main(["trials", "plan", path, *words]) == 0
    assert "find a gain of 40 points with a chance of 80%" in capsys.readouterr().out
    assert main(["trials", "plan", path, *words]) == 2
    assert "is there already" in capsys.readouterr().err
    key = json.loads((tmp_path / "t.key.json").read_text())
    winner = next(label for label, role in key["labels"].items() if role == "candidate")
    rows = list(csv.reader(io.StringIO((tmp_path / "t.csv").read_text())))
    at = rows[0].index("success"), rows[0].index("arm")
    for row in rows[1:]:
        row[at[0]] = str(int(row[at[1]] == winner))
    (tmp_path / "t.csv").write_text("\n".join(map(",".join, rows)))
    for arm in ("trust_weighted", "real_only"):
        (run / "policy" / arm).mkdir(parents=True)
    stages = {"evaluate": {"state": "done", "key": "k1"}}
    (run / "run.json").write_text(json.dumps({"format": 2, "sections": {}, "stages": stages}))
    (run / "promotion.json").write_text(json.dumps({"shipped": "real_only", "promoted": False, "budget": 3}))
    assert main(["trials", "decide", path, "--run", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shipped"] == "trust_weighted"
    now = read_decision(Store.at(run))
    assert (now["shipped"], now["method"], now["promoted"], now["budget"]) == ("trust_weighted", "trials", True, 3)
    stages["evaluate"]["key"] = "k2"  # other policies: the trials were not of them
    (run / "run.json").write_text(json.dumps({"format": 2, "sections": {}, "stages": stages}))
    assert read_decision(Store.at(run))["shipped"] == "real_only"
    (run / "policy" / "real_only").rmdir()
    assert main(["trials", "decide", path, "--run", str(run)]) == 3
    assert "has no policy real_only" in capsys.readouterr().err
    (tmp_path / "t.key.json").unlink()
    assert main(["trials", "decide", path]) == 3
    assert "has no key t.key.json beside it" in capsys.readouterr().err
