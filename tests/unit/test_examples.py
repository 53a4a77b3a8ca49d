"""The examples of the documentation: a source and a judge of one's own."""

import numpy as np
import pytest
from pydantic import ValidationError

import phaseb
from phaseb.config.data import EpisodesConfig
from phaseb.config.trust import JudgeConfig
from phaseb.episodes.importer import import_episodes
from phaseb.episodes.shards import read_episodes
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.storage import Store
from phaseb.trust.judges import JudgeInputs
from phaseb.trust.two_sample import judge


@pytest.fixture(autouse=True)
def examples(pytestconfig, monkeypatch):
    monkeypatch.syspath_prepend(pytestconfig.rootpath / "docs" / "examples")


def test_a_source_of_ones_own_is_imported(tmp_path):
    rng = np.random.default_rng(0)
    logs, target = tmp_path / "logs", Store.at(tmp_path / "episodes")
    logs.mkdir()
    for i in range(8):
        rows = [f"{p:.4f},{v:.4f},{a:.4f},{-abs(p):.4f}" for p, v, a in rng.normal(size=(20, 3))]
        (logs / f"log-{i:02d}.csv").write_text("position,speed,force,reward\n" + "\n".join([*rows, "0.1,0.2,,"]))
    import_episodes(EpisodesConfig(source="csv_source:CsvSource", path=str(logs)), target, seed=0)
    found = read_episodes(target)
    assert [len(e) for e in found] == [20] * 8
    assert {e.split for e in found} == {"train", "dev", "test"}
    assert found[0].state[-1].tolist() == pytest.approx([0.1, 0.2])
    assert len(list(phaseb.load_episodes(logs, source="csv_source:CsvSource"))) == 8
    with pytest.raises(DataError, match="no CSV files"):
        phaseb.load_episodes(tmp_path / "none", source="csv_source:CsvSource")


def sides(shift=0.0):
    rng = np.random.default_rng(0)
    real, made = (np.cumsum(rng.normal(size=(40, 11, 3)), axis=1).astype(np.float32) for _ in range(2))
    return real, made * (1 + shift), np.zeros((40, 10, 1), np.float32)


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.5, 0.75), (0.5, 0.9, 1.0)])
def test_a_judge_of_ones_own_joins_the_others(shift, least, most):
    config = JudgeConfig(
        families=["episode_trees", "linear_judge:linear_judge"], sigmas=[0.0], num_permutations=19, episode_rounds=5
    )
    scores = {s.family: s.auc for s in judge(*sides(shift), config, seed=0).scores}  # type: ignore[call-arg]
    assert least <= scores["linear_judge:linear_judge"] <= most
    assert set(scores) == set(config.families)


def broken_judge(evidence: JudgeInputs, config: JudgeConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(3), np.zeros(3)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nowhere:judge", ConfigError, "there is no module nowhere"),
        ("linear_judge:nothing", ConfigError, "nothing"),
        (f"{__name__}:broken_judge", DataError, r"gave \(3,\), wanted \(40,\)"),
    ],
)
def test_a_judge_that_is_none_is_refused(name, error, message):
    with pytest.raises(error, match=message):
        judge(*sides(), JudgeConfig(families=[name], sigmas=[0.0], num_permutations=19), seed=0)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["trees", "a b:c", ":judge"])
def test_a_judge_that_has_no_such_name_is_refused(name):
    with pytest.raises(ValidationError, match="nor module:function"):
        JudgeConfig(families=[name])
