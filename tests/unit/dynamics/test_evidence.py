"""Evidence about generators: the better one scores higher, and one that cannot be used is named."""

import numpy as np
import pytest

from phaseb.config.dynamics import GPConfig
from phaseb.dynamics.branches import Draws, draw
from phaseb.dynamics.evidence import difference, failure, forecast_score, recorded_branches
from phaseb.dynamics.gp.model import GPDynamics
from tests.unit.dynamics.conftest import make_world

CONFIG = GPConfig(max_transitions=150, num_hyperparameter_points=60, steps=20, num_directions=0)


@pytest.fixture(scope="module")
def scored():
    """A world, its recorded branches, and the score of a process model and of the same under wrong actions."""
    world, held_out = make_world(), make_world(12, seed=7, split="dev")
    recorded, episodes = recorded_branches(held_out, 4, 0)
    model = GPDynamics.fit(CONFIG, world, 0)
    good = forecast_score(recorded, episodes, draw(model.rollout, recorded, 0))

    def deaf(z0, actions, horizon, generator):
        return model.rollout(z0, lambda z, t: -actions(z, t), horizon, generator)

    return recorded, good, forecast_score(recorded, episodes, draw(deaf, recorded, 0))


def test_a_true_model_beats_the_naive_forecast_and_one_that_takes_actions_wrongly(scored):
    _, good, bad = scored
    assert good.state > 0.8
    assert good.reward > 0.8
    assert bad.value < good.value - 0.2
    mean, low, high = difference(good, bad, 0)
    assert 0 < low < mean < high
    assert mean == pytest.approx(good.value - bad.value)
    assert difference(good, good, 0) == (0, 0, 0)


def test_the_naive_forecast_scores_nothing(scored):
    recorded = scored[0]
    held = np.broadcast_to(recorded.z[:, :1], recorded.z.shape)
    mean = np.full_like(recorded.rewards, recorded.rewards[recorded.valid].mean())
    draws = Draws(np.stack([held] * 3), np.stack([mean] * 3), np.zeros((3, *mean.shape), np.float32))
    score = forecast_score(recorded, np.arange(len(recorded)), draws)
    assert abs(score.state) < 1e-6
    assert abs(score.reward) < 1e-6


def test_where_rewards_do_not_count_states_alone_are_compared(scored):
    recorded = scored[0]
    held = np.broadcast_to(recorded.z[:, :1], recorded.z.shape)
    draws = Draws(np.stack([held, recorded.z]), np.stack([recorded.rewards + 9] * 2), np.zeros_like(recorded.rewards))
    paid = forecast_score(recorded, np.arange(len(recorded)), draws)
    unpaid = forecast_score(recorded, np.arange(len(recorded)), draws, rewards_count=False)
    assert paid.value < 0 < unpaid.value == unpaid.state
    mean, low, high = difference(unpaid, forecast_score(recorded, np.arange(len(recorded)), draws, False), 0)
    assert mean == low == high == 0


def test_what_cannot_be_used_is_named(scored):
    recorded = scored[0]
    z, rewards = np.stack([recorded.z] * 2), np.stack([recorded.rewards] * 2)
    ends = np.zeros_like(rewards)
    assert failure(Draws(z, rewards, ends)) == ""
    assert "NaN" in failure(Draws(np.where(z > 1, np.nan, z), rewards, ends))
    assert "NaN" in failure(Draws(z, np.full_like(rewards, np.nan), ends))
    assert "diverge" in failure(Draws(z * 1e4, rewards, ends))
    assert "constant" in failure(Draws(np.ones_like(z), rewards, ends))


def test_windows_stay_within_their_episodes():
    lengths = [5] * 12
    recorded, episodes = recorded_branches(make_world(12, lengths=lengths), 4, 0)
    assert recorded.valid[:, 0].all()
    assert not recorded.valid.all()
    assert set(episodes) == set(range(12))
