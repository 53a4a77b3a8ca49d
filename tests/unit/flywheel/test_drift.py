"""What makes a part train again: a change that is there and large enough, seldom one that is not."""

import numpy as np
import pytest

from phaseb.config.flywheel import DriftConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.flywheel.drift import DriftTest, _worse, forecast_errors, retrained

CONFIG = DriftConfig()


def test_the_same_again_is_seldom_called_drift():
    rng = np.random.default_rng(0)
    alarms = [
        _worse(DriftConfig(tolerance=0), "encoder", "x", *np.exp(rng.normal(size=(2, 12)))).drifted for _ in range(600)
    ]
    assert np.mean(alarms) < 0.025  # one of four tests that share 5 %


def test_a_large_change_is_seen_in_a_dozen_episodes():
    rng = np.random.default_rng(1)
    seen = [
        _worse(CONFIG, "x", "x", np.exp(0.3 * rng.normal(size=12)), 2 * np.exp(0.3 * rng.normal(size=12))).drifted
        for _ in range(100)
    ]
    assert np.mean(seen) > 0.95


def test_a_change_that_is_sure_but_small_is_none():
    rng = np.random.default_rng(2)
    test = _worse(CONFIG, "x", "x", 1 + 0.01 * rng.normal(size=200), 1.1 + 0.01 * rng.normal(size=200))
    assert test.p < 1e-6
    assert not test.drifted


def test_better_is_never_drift():
    assert not _worse(CONFIG, "x", "x", np.linspace(2, 3, 40), np.linspace(1, 1.5, 40)).drifted


def test_too_few_episodes_say_nothing():
    assert not _worse(CONFIG, "x", "x", np.ones(40), np.array([9.0, 9.0, np.nan, 9.0])).drifted


def drift(part):
    return DriftTest(part, "x", 1.0, 9.0, 1e-9, 9, True)


@pytest.mark.parametrize(
    ("drifted", "scale", "wanted"),
    [
        ([], False, []),
        (["trust"], False, ["trust"]),
        (["dynamics"], False, ["dynamics"]),
        (["encoder"], False, ["encoder", "dynamics", "trust"]),  # they are trained on its latents
        ([], True, ["dynamics", "trust"]),  # they are trained on scaled actions
    ],
)
def test_what_is_trained_again_follows_from_what_drifted(drifted, scale, wanted):
    assert retrained([drift(part) for part in drifted], scale) == wanted


def test_forecasts_are_asked_for_in_segments_that_an_episode_has():
    """A world that moves by its action, and a model that forgets half of it."""
    rng = np.random.default_rng(3)
    actions = rng.normal(size=(3, 20, 2)).astype(np.float32)
    z = np.concatenate([np.zeros((3, 1, 2), np.float32), actions.cumsum(1)], 1)
    data = Trajectories(
        z=z,
        actions=actions,
        rewards=np.zeros((3, 20), np.float32),
        terminals=np.zeros((3, 20), np.float32),
        lengths=np.array([20, 14, 3]),
        ids=("a", "b", "c"),
        splits=("",) * 3,
        metrics={},
        lineage={},
    )

    def forecast(share):
        return lambda start, acted: np.concatenate([start[:, None], start[:, None] + share * acted.cumsum(1)], 1)

    np.testing.assert_allclose(forecast_errors(data, 5, forecast(1.0))[:2], 0, atol=1e-6)
    errors = forecast_errors(data, 5, forecast(0.5))
    assert np.isnan(errors[2])  # too short for a segment
    moved = np.stack([actions[1, i : i + 5].cumsum(0) for i in (0, 5)])  # 14 steps: two segments
    assert errors[1] == pytest.approx(np.sqrt(np.square(0.5 * moved).mean()), rel=1e-5)
