"""The metrics of a world model in a search: zero where rollouts are what happened, the right size elsewhere."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from phaseb.config.root import Config
from phaseb.episodes.trajectories import Trajectories
from phaseb.tuning.dynamics import NO_MATCH, DynamicsObjective, distance
from phaseb.tuning.space import apply_point

HORIZON = 20


def real_episodes(num: int = 24) -> Trajectories:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(num, HORIZON + 1, 3)).cumsum(1).astype(np.float32)
    ids = [f"real-{i}" for i in range(num)]
    return Trajectories(
        z=z,
        actions=np.zeros((num, HORIZON, 2), np.float32),
        rewards=np.zeros((num, HORIZON), np.float32),
        terminals=np.zeros((num, HORIZON), bool),
        lengths=np.full(num, HORIZON),
        ids=ids,
        splits=["dev"] * num,
    )


class Replays:
    """A learner whose model plays back what happened, scaled about each start."""

    def __init__(self, data: Trajectories, scale: float) -> None:
        z = torch.from_numpy(data.z)
        self.z = z[:, :1] + scale * (z - z[:, :1])

    def bundle(self) -> "Replays":
        return self

    def rollout(self, start, actions, horizon, generator):
        return SimpleNamespace(z=self.z)

    def mean_rollout(self, start, actions):
        return self.z


@pytest.fixture
def config() -> Config:
    return apply_point(Config(), {"synthesis.horizon": HORIZON})


def test_a_perfect_model_is_at_distance_zero(config):
    data = real_episodes()
    found = DynamicsObjective().measure(Replays(data, 1.0), config, data, seed=0)
    assert set(found) == set(DynamicsObjective().metrics(config))
    for name in ("latent_distance", "std_ratio_distance", "lag_match", "rmse_end", "drift_end"):
        assert found[name] == pytest.approx(0, abs=1e-6), name
    assert found["judge_auc"] < 0.75  # chance, over 24 pairs


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_rollouts_too_tame_or_too_wild_are_equally_far_off(config, scale):
    data = real_episodes()
    found = DynamicsObjective().measure(Replays(data, scale), config, data, seed=0)
    assert found["std_ratio_distance"] == pytest.approx(math.log(2), rel=1e-4)
    assert found["lag_match"] == pytest.approx(2 * math.log(2), rel=1e-4)  # it compares variances
    assert found["latent_distance"] > 0.5


def test_a_model_that_stands_still_is_as_far_off_as_can_be(config):
    data = real_episodes()
    found = DynamicsObjective().measure(Replays(data, 0.0), config, data, seed=0)
    assert found["std_ratio_distance"] == NO_MATCH
    assert all(math.isfinite(value) for value in found.values())


def test_distance():
    assert distance(1.0) == 0
    assert distance(2.0) == pytest.approx(distance(0.5))
    assert distance(0.0) == distance(float("nan")) == distance(float("inf")) == NO_MATCH
