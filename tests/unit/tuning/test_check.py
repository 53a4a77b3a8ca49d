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
        overrides: {world_model.num_step: 3}
        metrics: [{name: hight}]
        space:
          world_model.weights.trusst: {uniform: [0, 1]}
          world_model.clamp_quantile: {uniform: [0, 2]}
          world_model.num_steps: {integer: [1, 5]}
          policy.width: {integer: [8, 64]}
          run.seed: {integer: [0, 9]}
          world_model.loss: {choice: [mse, mae]}
          world_model.teacher_forcing.start: {uniform: [0, 1], when: {world_model.teacher_forcing.schedule: [linear]}}
          world_model.layer_norm: {choice: [true, false], when: {world_model.loss: [huber]}}
        """,
    )
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    told = str(caught.value).splitlines()
    expected = [
        "overrides.world_model.num_step: no such setting; did you mean 'world_model.num_steps'?",
        "space.world_model.weights.trusst: no such setting; did you mean 'world_model.weights.trust'?",
        "space.world_model.clamp_quantile = 2: ",
        "space.world_model.num_steps sets how long a trial is",
        "space.policy.width does not change what valley:Valley does",
        "space.run.seed says how a run is carried out",
        "space.world_model.loss = 'mae': ",
        "when: world_model.teacher_forcing.schedule is not searched",
        "when: world_model.loss is never 'huber'; it is one of ['mse', 'mae']",
        "metrics: valley:Valley does not report 'hight'; did you mean 'height'?; it has height, other",
    ]
    for one in expected:
        assert any(one in line for line in told), one
    assert len(told) == len(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("job: world-modle\nmetrics: {name: x}\nspace: {a: {choice: [1]}}", "did you mean 'world-model'"),
        ("job: nowhere:Nothing\nmetrics: {name: x}\nspace: {a: {choice: [1]}}", "cannot import nowhere:Nothing"),
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
