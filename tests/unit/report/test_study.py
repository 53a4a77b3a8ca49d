"""The page of a search, from the files that a search leaves."""

import json
import math
import re

import pytest

from phaseb.config.tuning import StudyConfig
from phaseb.errors import ConfigError, DataError
from phaseb.report.parallel import Axis, parallel_coordinates
from phaseb.report.study import Study, study_page, study_summary
from phaseb.runtime.storage import Store, strict
from phaseb.stages.report import retell

SPACE = {
    "dynamics.gru.learning_rate": {"loguniform": [1e-4, 1.0]},
    "dynamics.gru.loss": {"choice": ["mse", "huber", "l1"]},
}


def trial(number, value, state="done", steps=10, other=0.0, **point):
    rows = [
        {"height": value + 1, "other": other, "steps": 5.0},
        {"height": value, "other": other, "steps": float(steps)},
    ]
    settings = {
        "dynamics.gru.learning_rate": 10.0 ** -(1 + number % 4),
        "dynamics.gru.loss": ["mse", "huber", "l1"][number % 3],
    }
    return {"key": f"{number:016x}", "point": settings | point, "seed": 0, "number": number, "state": state,
            "seconds": 2.0 + number, "rows": [] if math.isnan(value) else rows,
            "reason": "diverged at step 3 <here>" if state == "failed" else ""}  # fmt: skip


TRIALS = [trial(0, 3.0), trial(1, 1.0, other=5.0), trial(2, 2.0, other=9.0), trial(3, 0.1, "stopped", steps=5),
          trial(4, math.nan, "failed"), trial(5, 4.0, other=1.0)]  # fmt: skip
RESULT = {"name": "s", "metric": "height", "best": {"dynamics.gru.learning_rate": 0.01}, "searched": 1.0,
          "confirmed": 1.25, "base": 3.5, "sealed": 1.5, "num_trials": {},
          "seconds": 9.0, "path": "best.yaml", "ended_by": "patience",
          "importance": {"dynamics.gru.loss": 0.9, "dynamics.gru.learning_rate": 0.1}, "front": []}  # fmt: skip


def write(folder, metrics=({"name": "height", "mode": "min"},), trials=TRIALS, result=RESULT):
    scheduler = {"kind": "none"} if len(metrics) > 1 else {}
    study = StudyConfig(metrics=list(metrics), space=SPACE, scheduler=scheduler)
    store = Store.at(folder)
    store.write_json(strict(study.model_dump(mode="json") | {"base": {"run": {"seed": 0}}}), "study.json")
    for one in trials:
        store.write_json(one, "trials", f"{one['key']}.json")
    if result:
        store.write_json(result, "result.json")
    return store


def titles(page):
    return re.findall(r"<h3>([^<]+)</h3>", page)


def test_the_page_tells_what_won_what_it_cost_and_every_trial(tmp_path):
    said = retell([str(write(tmp_path).root)])
    page = (tmp_path / "report" / "index.html").read_text()
    assert said["page"] == str(tmp_path / "report" / "index.html")
    assert "A better point was found: height 1.25 on fresh seeds, the base config&#x27;s own values have 3.5." in page
    for words in (
        "on fresh seeds",
        "sealed test split",
        "patience",
        "diverged at step 3 &lt;here&gt;",
        "4 done, 1 stopped, 1 failed",
    ):
        assert words in page, words
    wanted = {
        "History of the best",
        "What every trial looked like on its way",
        "What mattered",
        "What it cost",
        "Parallel coordinates",
    }
    assert set(titles(page)) == wanted
    assert said["cost"]["seconds"] == sum(t["seconds"] for t in TRIALS)
    assert said["trials"] == {"done": 4, "stopped": 1, "failed": 1, "running": 0}
    json.dumps(said, allow_nan=False)


def test_a_trial_that_was_stopped_early_is_no_best(tmp_path):
    """It looked better at its fifth step than any other did at its last."""
    page = study_page(Study.read(write(tmp_path)))
    best = re.search(r"History of the best</h3>(.*?)</figure>", page, re.DOTALL)[1]
    drawn = [float(v) for v in re.findall(r"<title>best so far, of trials that ran to the end: \d+, ([\d.]+)", best)]
    assert drawn == [3, 1, 1, 1]
    rows = re.findall(r"<tr><td>(\d+)</td><td>search</td><td>(\w+)</td>", page)
    assert [int(n) for n, _ in rows] == [2, 3, 1, 6, 4, 5]


def test_two_metrics_have_a_front(tmp_path):
    metrics = [{"name": "height", "mode": "min"}, {"name": "other", "mode": "max"}]
    page = study_page(Study.read(write(tmp_path, metrics)))
    front = re.search(r"Pareto front</h3>(.*?)</figure>", page, re.DOTALL)[1]
    assert sorted(re.findall(r"nothing beats these in both: ([\d.]+), ([\d.]+)", front)) == [("1", "5"), ("2", "9")]


def test_it_can_be_told_while_it_goes_on_and_before_anything_was_measured(tmp_path):
    going = [trial(0, 3.0), trial(1, 2.0, "running", steps=5)]
    study = Study.read(write(tmp_path, trials=going, result=None))
    assert "Still searching: 1 trials ended, 1 in progress." in study_page(study)
    assert study_summary(study)["result"] == {}
    empty = Study.read(write(tmp_path / "empty", trials=[], result=None))
    assert "Still searching" in study_page(empty)


def test_that_nothing_was_better_is_said(tmp_path):
    page = study_page(Study.read(write(tmp_path, result=RESULT | {"best": {}, "confirmed": 3.5})))
    assert "Nothing beat the base config&#x27;s own values (height 3.5)." in page


def test_a_study_of_another_version_is_refused(tmp_path):
    store = write(tmp_path)
    store.write_json({**store.read_json("study.json"), "metrics": "nonsense"}, "study.json")
    with pytest.raises(DataError, match="not a study of this version"):
        retell([store.root])


def test_what_is_no_study_is_refused(tmp_path):
    store = write(tmp_path / "odd")
    store.write_json({"key": "x", "nonsense": 1}, "trials", "x.json")
    with pytest.raises(DataError, match="not a trial of this version"):
        retell([store.root])
    with pytest.raises(DataError, match="is not a run directory"):
        retell([str(tmp_path / "nowhere")])
    with pytest.raises(ConfigError, match="is a study; only runs are compared"):
        retell([store.root, str(tmp_path)])
    with pytest.raises(ConfigError, match="3 were given"):
        retell(["a", "b", "c"])


def test_axes_place_by_ratio_by_category_and_leave_out_what_is_absent():
    axis = Axis("rate", [1e-4, 1e-2, 1.0, None], by_ratio=True)
    assert [axis.at(v) for v in (1e-4, 1e-2, 1.0, None)] == [0, 0.5, 1, None]
    assert [Axis("kind", [], categories=["a", "b", "c"]).at(v) for v in ("a", "b", "c", None)] == [0, 0.5, 1, None]
    assert Axis("still", [3, 3]).at(3) == 0.5
    svg = parallel_coordinates(
        [axis, Axis("y", [1, 2])], [{"rate": None, "y": 1}, {"rate": 1.0, "y": 2}], [0, 1], ["one", "two"]
    )
    paths = re.findall(r'points="([^"]*)"', svg)
    assert [len(p.split()) for p in paths] == [1, 2]
    assert svg.index("<title>one") < svg.index("<title>two")
