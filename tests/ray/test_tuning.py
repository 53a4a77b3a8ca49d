"""Searches on a real Ray: to their end, ended early, through failures, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from phaseb.cli.main import main
from phaseb.config.load import load_config
from phaseb.tuning.search import OptunaPoints
from phaseb.tuning.space import defaults
from phaseb.tuning.trial import SEED, point_of
from phaseb.tuning.trial_store import trial_key
from phaseb.tuning.validation import load_study

TESTS, ROOT = str(Path(__file__).parents[1]), str(Path(__file__).parents[2])

STUDY = """
job: valley:Valley
overrides: {{dynamics.gru.num_steps: 27}}
metrics: {metrics}
space:
  dynamics.gru.learning_rate: {{loguniform: [0.0001, 1.0]}}
  dynamics.gru.weights.trust: {{uniform: [0, 1]}}
  dynamics.gru.weights.var: {{choice: {var}}}
search: {search}
scheduler: {scheduler}
budget: {budget}
resources: {{cpus: 0.5}}
reports: 9
confirm: {confirm}
"""
DEFAULTS = {
    "metrics": "{name: height}",
    "var": "[0.0, 10.0]",
    "search": "{num_startup: 8}",
    "scheduler": "{kind: asha}",
    "budget": "{trials: 10}",
    "confirm": "{top: 1, seeds: 2}",
}


def write(folder: Path, name: str, **parts: str) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(STUDY.format(**{**DEFAULTS, **parts}))
    return str(path)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(TESTS)
    return tmp_path


def trials(home: Path, study: str, phase: str = "search") -> list[dict]:
    found = [json.loads(p.read_text()) for p in (home / f"runs/default/studies/{study}/trials").glob("*.json")]
    return sorted((t for t in found if t["phase"] == phase), key=lambda t: t["number"])


def test_a_study_ends_with_a_config_that_runs(home, capsys):
    assert main(["tune", write(home, "valley"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    found = trials(home, "valley")
    assert len(found) == sum(result["num_trials"].values()) == 10
    assert {"done", "failed"} <= {t["state"] for t in found} <= {"done", "stopped", "failed"}
    for trial in found:  # exactly the points that diverge have failed, with their reason
        assert (trial["state"] == "failed") == (trial["point"]["dynamics.gru.weights.var"] == 10.0)
        assert "valley diverged" in trial["reason"] or trial["state"] != "failed"
    best = load_config(result["path"])
    assert best.dynamics.gru.learning_rate == result["best"]["dynamics.gru.learning_rate"]
    assert best.dynamics.gru.num_steps == load_config().dynamics.gru.num_steps  # a trial's length is not the run's
    assert best.run.dir == "runs/default-valley"
    confirmed = trials(home, "valley", "confirm")
    assert len(confirmed) == 4
    assert {t["seed"] for t in confirmed}.isdisjoint({t["seed"] for t in found})
    assert result["confirmed"] < result["base"]
    told = optuna.load_study(study_name="phaseb", storage=f"sqlite:///{home}/runs/default/studies/valley/study.db")
    assert len(told.trials) == 10
    kept = list((home / "runs/default/studies/valley/checkpoints").iterdir())
    assert len(kept) <= 2  # one of the search, one of the confirmation

    assert main(["tune", write(home, "valley")]) == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert main(["tune", write(home, "valley", search="{num_startup: 5}"), "--resume"]) == 2
    assert "search.num_startup was 8, is 5" in capsys.readouterr().err
    assert main(["tune", write(home, "valley", budget="{trials: 12}"), "--resume", "--json"]) == 0
    assert sum(json.loads(capsys.readouterr().out)["num_trials"].values()) == 12
    assert trials(home, "valley")[:10] == found  # more budget adds trials and touches none


def test_a_grid_is_tried_whole_and_several_metrics_give_a_front(home, capsys):
    study = write(
        home,
        "grid",
        search="{algorithm: grid}",
        scheduler="{kind: none}",
        var="[0.0]",
        budget="{trials: 100}",
        confirm="{top: 0}",
    )
    assert main(["tune", study, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_trials"]["done"] == 9  # 3 x 3 x 1
    assert {t["point"]["dynamics.gru.weights.trust"] for t in trials(home, "grid")} == {0.0, 0.5, 1.0}

    metrics = "[{name: height}, {name: other, mode: max}]"
    study = write(
        home,
        "front",
        metrics=metrics,
        search="{algorithm: nsga2, num_startup: 3}",
        var="[0.0]",
        scheduler="{kind: none}",
        budget="{trials: 7}",
        confirm="{top: 0}",
    )
    assert main(["tune", study, "--json"]) == 0
    front = json.loads(capsys.readouterr().out)["front"]
    values = [(f["height"], f["other"]) for f in front]
    assert values == sorted(values)
    assert [o for _, o in values] == sorted(o for _, o in values)


def test_budgets_end_a_study_and_a_trial_too_large_is_refused(home, capsys):
    study = write(home, "patient", budget="{trials: 500, patience: 4}", confirm="{top: 0}", var="[0.0]")
    assert main(["tune", study, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ended_by"].startswith("budget.patience")
    assert sum(result["num_trials"].values()) < 100
    large = Path(write(home, "large"))
    large.write_text(large.read_text().replace("cpus: 0.5", "cpus: 64"))
    assert main(["tune", str(large)]) == 4
    assert "64 CPU" in capsys.readouterr().err


@pytest.mark.nightly
def test_a_trial_whose_process_dies_is_started_again(home, capsys):
    study = Path(write(home, "mortal", budget="{trials: 3}", confirm="{top: 0}", var="[0.0]", scheduler="{kind: none}"))
    died = home / "died"
    study.write_text(study.read_text().replace("num_steps: 27", f"num_steps: 27, episodes.path: {died}"))
    assert main(["tune", str(study), "--json"]) == 0
    assert died.exists()
    assert json.loads(capsys.readouterr().out)["num_trials"] == {"done": 3, "stopped": 0, "failed": 0, "running": 0}
    assert [[row["steps"] for row in t["rows"]] for t in trials(home, "mortal")] == [list(range(3, 28, 3))] * 3


@pytest.mark.nightly
def test_a_killed_study_goes_on_without_repeating_a_trial(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TESTS)
    study = write(
        tmp_path,
        "killed",
        budget="{trials: 20}",
        confirm="{top: 0}",
        var="[0.0]",
        scheduler="{kind: none}",
        search="{algorithm: random}",
    )
    log = tmp_path / "log"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment = {**clean, "PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}", "VALLEY_LOG": str(log)}
    environment["VALLEY_PAUSE_S"] = "0.02"
    command = [sys.executable, "-m", "phaseb.cli", "tune", study, "--auto-resume", "--json"]
    records = tmp_path / "runs/default/studies/killed/trials"

    def ended() -> dict[str, bytes]:
        files = {p.name: p.read_bytes() for p in records.glob("*.json")} if records.exists() else {}
        return {name: data for name, data in files.items() if b'"state": "running"' not in data}

    driver = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(ended()) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = ended()
    assert 6 <= len(before) < 20
    started = len(log.read_text().splitlines())

    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, timeout=280, check=True)
    after = ended()
    result = json.loads(done.stdout)
    assert result["num_trials"] == {"done": 20, "stopped": 0, "failed": 0, "running": 0}
    assert len(after) == 20
    # Point for point what a search draws that nobody kills, and so the same best.
    config, settings = load_config(), load_study(study).study
    unbroken = OptunaPoints(settings, config.run.seed, [], [], [defaults(settings.space, config)], None)
    drawn = [unbroken.suggest(str(i)) for i in range(20)]
    assert {trial_key(point_of(d), d[SEED]) for d in drawn} == {name.removesuffix(".json") for name in after}
    assert result["searched"] == min(json.loads(data)["rows"][-1]["height"] for data in after.values())
    assert {name: after[name] for name in before} == before
    runs = log.read_text().splitlines()
    assert len(set(runs)) == 20  # every point that was in progress is taken up again, none is lost
    finished = {
        f"{r['point']['dynamics.gru.learning_rate']!r} {r['point']['dynamics.gru.weights.trust']!r} {r['seed']}"
        for r in map(json.loads, before.values())
    }
    assert finished.isdisjoint(runs[started:])


@pytest.mark.nightly
def test_a_population_finds_a_schedule_that_trains_again_to_the_same_end(home, capsys, monkeypatch):
    study = home / "ramp.yaml"
    study.write_text("""
job: ramp:Ramp
overrides: {dynamics.gru.num_steps: 60}
metrics: {name: error}
space: {dynamics.gru.learning_rate: {loguniform: [0.0001, 1.0]}}
search: {algorithm: random}
scheduler: {kind: pbt}
budget: {trials: 4}
reports: 4
resources: {cpus: 0.5}
confirm: {top: 1, seeds: 1}
""")
    assert main(["tune", str(study), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    found = trials(home, "ramp")
    assert [t["state"] for t in found].count("done") == 4
    assert [t["state"] for t in found].count("stopped") == 3  # one of four at each of three turns
    winner = next(t for t in found if t["point"] == result["best"])
    assert [c["at"] for c in winner["point"]["dynamics.gru.changes"]]
    assert winner["rows"][-1]["steps"] == 60
    # Learned weight by weight from its ancestors in the search, from the start in the confirmation: the same number.
    assert result["confirmed"] == result["searched"] < result["base"]
    assert load_config(result["path"]).dynamics.gru.changes[0].at == winner["point"]["dynamics.gru.changes"][0]["at"]
    told = optuna.load_study(study_name="phaseb", storage=f"sqlite:///{home}/runs/default/studies/ramp/study.db")
    assert len(told.trials) == 7
