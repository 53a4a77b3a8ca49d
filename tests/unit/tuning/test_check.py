"""A study is checked whole before its first trial, and every fault is named at once."""

import sys
from pathlib import Path

import pytest

from phaseb.errors import ConfigError
from phaseb.tuning.validation import load_study

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tests"), *sys.path])


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_all_faults_at_once(tmp_path):
    path = write(
        tmp_path,
        """
        job: valley:Valley
        overrides: {dynamics.gru.num_step: 3}
        metrics: [{name: hight}]
        space:
          dynamics.gru.weights.trusst: {uniform: [0, 1]}
          dynamics.gru.clamp_quantile: {uniform: [0, 2]}
          dynamics.gru.num_steps: {integer: [1, 5]}
          policy.width: {integer: [8, 64]}
          run.seed: {integer: [0, 9]}
          dynamics.gru.loss: {choice: [mse, mae]}
          dynamics.gru.teacher_forcing.start: {uniform: [0, 1], when: {dynamics.gru.teacher_forcing.schedule: [linear]}}
          dynamics.gru.layer_norm: {choice: [true, false], when: {dynamics.gru.loss: [huber]}}
        """,
    )
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    told = str(caught.value).splitlines()
    expected = [
        "overrides.dynamics.gru.num_step: no such setting; did you mean 'dynamics.gru.num_steps'?",
        "space.dynamics.gru.weights.trusst: no such setting; did you mean 'dynamics.gru.weights.trust'?",
        "space.dynamics.gru.clamp_quantile = 2: ",
        "space.dynamics.gru.num_steps sets how long a trial is",
        "space.policy.width does not change what valley:Valley does",
        "space.run.seed says how a run is carried out",
        "space.dynamics.gru.loss = 'mae': ",
        "when: dynamics.gru.teacher_forcing.schedule is not searched",
        "when: dynamics.gru.loss is never 'huber'; it is one of ['mse', 'mae']",
        "metrics: valley:Valley does not report 'hight'; did you mean 'height'?; it has height, other",
    ]
    for one in expected:
        assert any(one in line for line in told), one
    assert len(told) == len(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("job: dynamisc\nmetrics: {name: x}\nspace: {a: {choice: [1]}}", "did you mean 'dynamics'"),
        (
            "job: nowhere:Nothing\nmetrics: {name: x}\nspace: {a: {choice: [1]}}",
            "nowhere:Nothing: there is no module nowhere",
        ),
        ("metrics: {name: x}\nspace: {}", "space"),
        ("metric: {name: x}\nspace: {a: {choice: [1]}}", "unknown key metric; did you mean 'metrics'"),
        ("metrics: [{name: a}, {name: b}]\nspace: {a: {choice: [1]}}", "several metrics have no single order"),
        ("metrics: {name: a}\nspace: {a: {uniform: [2, 1]}}", "wrong way round"),
        ("metrics: {name: a}\nspace: {a: {choice: [1]}}\nconfig: nowhere.yaml", "cannot read config"),
        ("- 1", "must hold"),
    ],
)
def test_a_wrong_study_is_one_clear_error(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_study(write(tmp_path, text))


@pytest.mark.parametrize("path", sorted((ROOT / "tune").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_study_is_right(path):
    assert load_study(path).name == path.stem
