"""phaseb from Python: what the docstrings show is what happens."""

import doctest
import shutil

import numpy as np
import pytest

import phaseb
from phaseb.errors import ConfigError, DataError

FIXTURES = ("lerobot-v3", "lerobot-v21", "minari-hdf5", "minari-arrow", "minari-parquet")
EXAMPLES = ("run", "load_episodes", "load_latents", "WorldModel", "TrustGate", "ReplayClient")


@pytest.fixture(scope="module")
def place(finished, tmp_path_factory):
    """A folder as the examples have it: a run that is done, its config, a recording."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(finished.folder, folder / "runs" / "demo")
    shutil.copy(finished.config, folder / "demo.yaml")
    rng = np.random.default_rng(0)
    np.savez(
        folder / "swings.npz",
        observations=rng.normal(size=(2, 21, 3)),
        actions=rng.normal(size=(2, 20, 1)),
        rewards=rng.normal(size=(2, 20)),
    )
    return folder


def test_every_name_has_an_example():
    assert set(EXAMPLES) == set(phaseb.__all__) - {"__version__"}
    assert set(EXAMPLES) <= set(dir(phaseb))
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = phaseb.nothing_such


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_do_what_they_say(name, place, ray_up, monkeypatch):
    monkeypatch.chdir(place)
    found = [t for t in doctest.DocTestFinder(recurse=False).find(getattr(phaseb, name), name, globs={}) if t.examples]
    assert found, f"{name} has no example"
    for test in found:
        told = []
        result = doctest.DocTestRunner(verbose=False).run(test, out=told.append)
        assert result.attempted > 1
        assert result.failed == 0, "".join(told)


def test_the_format_is_told_from_what_lies_there(place, pytestconfig):
    folder = pytestconfig.rootpath / "tests" / "fixtures"
    for name in FIXTURES:
        episodes = list(phaseb.load_episodes(folder / name))
        assert len(episodes) == 5 or name == "lerobot-v3", name
        assert all(len(episode) > 0 for episode in episodes)
    recorded = list(phaseb.load_episodes(place / "runs" / "demo"))
    assert {episode.split for episode in recorded} == {"train", "dev", "test"}
    with pytest.raises(ConfigError, match="no format that can be recognised"):
        phaseb.load_episodes(place / "runs")
    with pytest.raises(ConfigError, match="nonsense"):
        phaseb.load_episodes(place / "swings.npz", columns={"nonsense": "a"})
    with pytest.raises(DataError, match="no such file"):
        phaseb.load_episodes(place / "absent.npz")


def test_wrong_calls_are_one_clear_line(place):
    model = phaseb.WorldModel.load(place / "runs" / "demo")
    with pytest.raises(ValueError, match=r"starts \(2, 3\); wanted \(N, "):
        model.rollout(np.zeros((2, 3), np.float32), np.zeros((2, 5, model.action_size), np.float32))
    with pytest.raises(ConfigError, match="did you mean 'evaluate'"):
        phaseb.run(job="evaluat")
    with pytest.raises(DataError):
        phaseb.TrustGate.load(place / "nowhere")


@pytest.mark.parametrize("name", ["gru", "gp"])
def test_a_generator_is_driven_by_actions_or_by_a_policy(name, place):
    model = phaseb.WorldModel.load(place / "runs" / "demo", name)
    real = phaseb.load_latents(place / "runs" / "demo", "dev")
    assert model.name == name
    assert model.uncertainty_scale > 0
    still = np.zeros((len(real), 5, model.action_size), np.float32)
    one = model.rollout(real.z[:, 0], still, seed=3)
    other = model.rollout(real.z[:, 0], lambda z, t: still[:, t], seed=3, horizon=5)
    np.testing.assert_array_equal(one.z, other.z)
    assert one.lineage["model"] == (model.digest,) * len(real)
    with pytest.raises(ValueError, match="a policy needs horizon="):
        model.rollout(real.z[:, 0], lambda z, t: still[:, t])
    with pytest.raises(ValueError, match=r"the policy returned actions \(1, 1\) at step 0"):
        model.rollout(real.z[:, 0], lambda z, t: np.zeros((1, 1)), horizon=2)


def test_a_generator_that_is_not_there_is_one_clear_line(place):
    run = place / "runs" / "demo"
    assert phaseb.WorldModel.load(run).name in ("gru", "gp")
    with pytest.raises(ConfigError, match="has no generator 'lstm'; it has gp, gru"):
        phaseb.WorldModel.load(run, "lstm")
    with pytest.raises(DataError, match="has no generator yet: run `phaseb dynamics` first"):
        phaseb.WorldModel.load(place / "nowhere")


def test_the_same_seed_imagines_the_same(place):
    run = place / "runs" / "demo"
    model, real = phaseb.WorldModel.load(run, "gru"), phaseb.load_latents(run, "dev")
    model.generator.gp_correction = None  # which all members share
    first, again, other = (model.rollout(real.z[:, 0], real.actions, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.z, again.z)
    assert not np.array_equal(first.z, other.z)
    gate = phaseb.TrustGate.load(run)
    np.testing.assert_array_equal(gate.score(first).weights, gate.score(again).weights)
    assert 0 <= gate.passing <= 1


def test_actions_are_read_ahead_only_where_they_were_recorded(place):
    run = place / "runs" / "demo"
    model, real = phaseb.WorldModel.load(run, "gru"), phaseb.load_latents(run, "dev")
    model.generator.gp_correction = None  # which reads nothing ahead
    start, other = real.z[:, 0], real.actions.copy()
    other[:, -1] = -other[:, -1]
    chosen, changed = (model.rollout(start, actions, seed=1) for actions in (real.actions, other))
    np.testing.assert_array_equal(chosen.z[:, :-1], changed.z[:, :-1])
    recorded, altered = (model.rollout(start, actions, seed=1, recorded=True) for actions in (real.actions, other))
    assert not np.array_equal(recorded.z[:, :-1], altered.z[:, :-1])
